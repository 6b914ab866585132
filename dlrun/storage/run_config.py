"""A run's `.hydra/config.yaml`, and the digest of it that the summary keeps.

The configuration determines what a run is. One that was edited in the folder would go on under the old identity, so
it is refused: other values are given on the command line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dlrun.errors import DamagedFile
from dlrun.storage.files import yaml_text
from dlrun.storage.files.opening import IRREGULAR, read_bytes
from dlrun.storage.files.replacing import sync_files, sync_folder, write_atomically
from dlrun.storage.rundir import RunDir

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMPOSED = "composed.yaml"
"""Beside the configuration: as Hydra composed it, with its references."""

STARTED = "started"
"""The key of what was relative: the start folder, its place seen from the run's, and the paths as they were given."""

_PATH = re.compile(r"(?:.*_)?(?:path|paths|file|files|folder|dir|directory|root|labels)$|init_from$")
_SECRET = re.compile(r"pass|pwd|token|secret|credential|auth|(?:api|access|private)_?key", re.IGNORECASE)
_LOGIN = re.compile(r"\w[\w+.-]*://[^/\s]*:[^/\s]*@")
_VARIABLE = re.compile(r"oc\.env:\s*([\w.]+)")

ADVICE = (
    "Put it back as it was. For another length, device or interval type `dlrun resume {id} KEY=VALUE`; "
    "any other value makes another run: `dlrun train`."
)


def load(folder: RunDir) -> DictConfig:
    """The configuration as it was composed.

    Raises `DamagedFile` if it is missing, no YAML, or was altered since the run began.
    """
    from omegaconf import DictConfig, OmegaConf  # `dlrun runs` needs none
    from omegaconf.errors import OmegaConfBaseException

    text = _read(folder)
    try:
        yaml_text.check_aliases(text)
        config = OmegaConf.create(text)
    except AssertionError:  # a number
        raise _damaged(folder, "it holds no configuration") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise _damaged(folder, f"it is no YAML ({_line(error)})") from None
    if not isinstance(config, DictConfig) or not config:
        raise _damaged(folder, "it holds no configuration")
    return config


def plain(folder: RunDir) -> dict[str, Any]:
    """The configuration as plain values.

    References that cannot be resolved, and those to environment variables, stay text: these values are shown and sent,
    and the folder may come from somebody else who asks for a password so.

    Empty if there is none yet. Raises `DamagedFile` as `load` does.
    """
    if not folder.config.exists():
        return {}
    text = _read(folder)
    try:
        values = _resolve(text) if "${" in text else yaml_text.parse(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"it is no YAML ({_line(error)})") from None
    kept = values if isinstance(values, dict) else {}
    return {str(name): value for name, value in kept.items() if name != STARTED}


def replace(folder: RunDir, text: str) -> None:
    """Write another configuration of the same run, as `dlrun resume` does."""
    content = text.encode()
    # the digest first: a kill between the two leaves a file that fits one of them
    with folder.edit_summary() as summary:
        summary.config_digests = [*summary.config_digests, _digest(content)]
    write_atomically(folder.config, content)
    with folder.edit_summary() as summary:
        summary.config_digests = [_digest(content)]


def keep_resolved(folder: RunDir, values: Mapping[str, Any]) -> None:
    """Replace the configuration of a run that begins by its `values`, as `resolved` has them.

    What Hydra composed stays beside it. A configuration without references and relative paths is left as it is. All
    of it survives a power cut.
    """
    from omegaconf import OmegaConf

    if not folder.config.exists():
        return
    text = folder.config.read_text(encoding="utf-8")
    composed = _plain(OmegaConf.create(text), resolve=False)
    kept = placed(resolved(composed, values), folder.path)
    if kept != composed and ("${" in text or STARTED in kept):
        write_atomically(folder.config.with_name(COMPOSED), text.encode())
        write_atomically(folder.config, OmegaConf.to_yaml(OmegaConf.create(kept)).encode())
    # Hydra leaves its files to the system, which writes them half a minute later
    sync_files(folder.config.parent)
    sync_folder(folder.path.parent)


def resolved(composed: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration to keep in a folder: no references, no relative paths.

    References to secrets in environment variables stay: a folder holds none. `values` are the resolved ones.
    """
    if STARTED in values:  # a job's, kept in the manifest already
        return dict(composed)
    given: dict[str, str] = {}
    secrets = [value for name in _VARIABLE.findall(str(composed)) if (value := _secret(name))]

    def keep(raw: Any, value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            inner = raw if isinstance(raw, Mapping) else {}
            return {name: keep(inner.get(name), each, f"{key}.{name}" if key else name) for name, each in value.items()}
        if isinstance(value, list):
            rows = raw if isinstance(raw, list) and len(raw) == len(value) else [None for _ in value]
            return [keep(one, each, key) for one, each in zip(rows, value, strict=True)]
        if not isinstance(value, str):
            return value
        reference = isinstance(raw, str) and "${" in raw
        if reference and (_LOGIN.match(value) or any(secret in value for secret in secrets)):
            return raw
        if _is_relative_path(key, value):
            given[key] = value
            value = str(Path.cwd() / value)
        return value.replace("${", r"\${")

    kept = {name: keep(composed.get(name), value, name) for name, value in values.items()}
    return kept | {STARTED: {"folder": str(Path.cwd()), "paths": given}} if given else kept


def placed(kept: dict[str, Any], run: Path) -> dict[str, Any]:
    """A resolved configuration with the start folder's place, seen from the folder `run`."""
    started = kept.get(STARTED)
    if not started or "from_run" in started:
        return kept
    return kept | {STARTED: {**started, "from_run": os.path.relpath(started["folder"], run)}}


def read_values(kept: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration that `resolved` has made, secrets too."""
    from omegaconf import OmegaConf

    return _plain(OmegaConf.create(kept), resolve=True) if "${" in str(kept) else kept


def locate_paths(config: DictConfig, run: Path) -> None:
    """Replace paths that are gone by where the files are now.

    The start folder may have been moved together with the run, or the file lies below the current one.
    """
    from omegaconf import OmegaConf

    started = OmegaConf.to_container(config[STARTED]) if config.get(STARTED) else None
    paths = started.get("paths") if isinstance(started, dict) else None
    for key, given in paths.items() if isinstance(paths, dict) else ():
        known = OmegaConf.select(config, key)
        if not isinstance(known, str) or Path(known).exists():
            continue
        places = (run / str(started.get("from_run")) / given, Path(given))  # type: ignore[union-attr]
        found = next((place for place in places if place.exists()), None)
        if found is not None:
            OmegaConf.update(config, key, os.path.normpath(Path.cwd() / found))


def _plain(config: Any, *, resolve: bool) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def located(kept: dict[str, Any], run: Path) -> dict[str, Any]:
    """A job's configuration with its paths as by `locate_paths`."""
    from omegaconf import OmegaConf

    if not kept.get(STARTED):
        return kept
    config = OmegaConf.create(kept)
    locate_paths(config, run)
    return _plain(config, resolve=False)  # secrets stay references


def variables(config: DictConfig) -> list[str]:
    """The names of the variables, found by resolving each value.

    >>> from omegaconf import OmegaConf
    >>> variables(OmegaConf.create({"a": "${oc.env:HOME}", "b": "${oc.decode:${oc.env:${c},1}}", "c": "DEPTH"}))
    ['HOME', 'DEPTH']
    """
    found: list[str] = []

    def note(name: Any, *default: Any) -> Any:
        found.append(str(name))
        return os.environ.get(str(name), *default[:1])

    with _reading_environment_by(note):
        _resolve_each(config)
    return found


def _resolve_each(node: Any) -> None:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # one by one: what does not resolve hides no other
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        value = None
        with suppress(OmegaConfBaseException, RecursionError):
            value = node[key]
        if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(node, key):
            _resolve_each(value)


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "")
    return value if _SECRET.search(variable) or _LOGIN.match(value) else ""


def _is_relative_path(key: str, value: str) -> bool:
    named = _PATH.match(key.rpartition(".")[2]) and not key.startswith(("tracking.", "trainer."))
    return bool(named and value and not Path(value).is_absolute() and Path(value).exists())


def digests(folder: RunDir) -> list[str]:
    """What the summary keeps of the file as it is now."""
    return [_digest(read_bytes(folder.config, advice=IRREGULAR))] if folder.config.exists() else []


def _read(folder: RunDir) -> str:
    try:
        content = read_bytes(folder.config, advice=ADVICE.format(id=folder.id))
        text = content.decode()
    except FileNotFoundError:
        raise _damaged(folder, "it is missing") from None
    except UnicodeDecodeError as error:
        raise _damaged(folder, f"it is no text ({error})") from None
    # runs of before 0.2 have no digest
    known = folder.summary().config_digests
    if known and _digest(content) not in known:
        raise _damaged(folder, "it was altered after the run began")
    return text


def _damaged(folder: RunDir, found: str) -> DamagedFile:
    return DamagedFile(folder.config, found, ADVICE.format(id=folder.id))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _resolve(text: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    yaml_text.check_aliases(text)
    try:
        config = OmegaConf.create(text)
    except (AssertionError, OmegaConfBaseException) as error:  # a number, or a reference without an end
        raise ValueError(str(error)) from None
    written = "${{oc.env:{}}}".format
    with _reading_environment_by(lambda *words: written(",".join(map(str, words)))), suppress(OmegaConfBaseException):
        return OmegaConf.to_container(config, resolve=True)
    return OmegaConf.to_container(config)


@contextmanager
def _reading_environment_by(function: Callable[..., Any]) -> Iterator[None]:
    """Have references to environment variables resolved by a function."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    OmegaConf.register_new_resolver("oc.env", function, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
