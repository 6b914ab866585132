"""A run's `.hydra/config.yaml`, and the digest of it that the summary keeps.

The configuration determines what a run is. One that was edited in the folder would go on under the old identity, so
it is refused: other values are given on the command line.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import yaml

from dlrun.errors import DamagedFile
from dlrun.storage.files.opening import IRREGULAR, read_bytes
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.rundir import RunDir

if TYPE_CHECKING:
    from omegaconf import DictConfig

ADVICE = (
    "Put it back as it was. For another length, device or interval type `dlrun resume {id} KEY=VALUE`; "
    "any other value makes another run: `dlrun train`."
)


def load(folder: RunDir) -> DictConfig:
    """The configuration as it was composed.

    Raises `DamagedFile` if it is missing, no YAML, or was altered since the run began.
    """
    from omegaconf import DictConfig, OmegaConf  # `dlrun runs` needs none

    text = _read(folder)
    try:
        config = OmegaConf.create(text)
    except AssertionError:  # a number
        raise _damaged(folder, "it holds no configuration") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
        values = _resolve(text) if "${" in text else yaml.load(text, Loader=_loader())  # a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"it is no YAML ({_line(error)})") from None
    return {str(name): value for name, value in values.items()} if isinstance(values, dict) else {}


def replace(folder: RunDir, text: str) -> None:
    """Write another configuration of the same run, as `dlrun resume` does."""
    content = text.encode()
    # the digest first: a kill between the two leaves a file that fits one of them
    with folder.edit_summary() as summary:
        summary.config_digests = [*summary.config_digests, _digest(content)]
    write_atomically(folder.config, content)
    with folder.edit_summary() as summary:
        summary.config_digests = [_digest(content)]


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
    from omegaconf.resolvers import oc

    config = OmegaConf.create(text)
    OmegaConf.register_new_resolver("oc.env", _as_written, replace=True)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(config)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _as_written(*words: Any) -> str:
    return f"${{oc.env:{','.join(map(str, words))}}}"


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """A fast YAML loader with OmegaConf's idea of a number."""
    from omegaconf._utils import get_yaml_loader

    own = get_yaml_loader()
    # written in C: twenty times as fast as OmegaConf's; some builds of PyYAML lack it
    fast = getattr(yaml, "CSafeLoader", None)
    return type("Loader", (fast,), {"yaml_implicit_resolvers": own.yaml_implicit_resolvers}) if fast else own
