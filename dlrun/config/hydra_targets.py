"""What Hydra's own part of a configuration may do: its plugins, callbacks, log handlers and folders.

Hydra refuses a few names itself, but late and with a traceback. Here all are checked before it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dlrun.config import log_handlers
from dlrun.config.allowlist import allows
from dlrun.errors import ConfigError
from dlrun.storage import lookup

PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins", "hydra.experimental")
CLUSTER = "hydra_plugins.dlrun_cluster"
KNOWN = (
    *("hydra_plugins.dlrun_launcher", "hydra_plugins.dlrun_sweeper", "hydra_plugins.dlrun_search", CLUSTER),
    *PLUGINS[1:],
)
"""Of the plugins, those whose settings are not commands, but for `COMMANDS`."""

COMMANDS = ("setup", "additional_parameters", "submitit_folder", "srun_args", "ray")
"""The settings of launchers of clusters with which other programs are run, on other machines or in other folders."""

SECTIONS = ("launcher", "sweeper", "callbacks")
LOGGING = ("job_logging", "hydra_logging")

KEPT = (*SECTIONS, "job", "job_logging", "mode", "output_subdir", "overrides", "runtime", "verbose")
"""The keys of a saved sweep that its jobs are run with."""

_RUN = Path("/output_dir")  # stands for the folder of a run, which is not there yet


def check(hydra: DictConfig, *, trusted: Sequence[str] = (), foreign: str = "", home: Path | None = None) -> None:
    """Refuse what is not allowed.

    `foreign` names the source of somebody else's configuration, which may set no environment variable (`LD_PRELOAD`
    runs code) and no folder. `home` is the folder of a saved sweep.

    Raises `ConfigError` for a class outside of these packages, unless it is the user's or trusted, and for whatever
    acts outside of the folders of runs.
    """
    with _placed(hydra):
        content = {name: _resolved(hydra, name) for name in (*SECTIONS, *LOGGING)}
        roots = [_RUN, home] if home else [_RUN, *(folder for _, folder in _folders(hydra))]
        outside = [*_outside(hydra, home)] if foreign else []
    for section, found in content.items():
        packages = log_handlers.PACKAGES if section in LOGGING else KNOWN if foreign else PLUGINS
        for key, name in _names_in(found, f"hydra.{section}"):
            if not allows(name, trusted=trusted, packages=packages):
                raise ConfigError(
                    f"`{key}={name}` is not allowed: expected a class of {', '.join(packages)}, or of a module in this "
                    f"folder. If you trust it, type `'trusted=[{name}]'`."
                )
    for section in LOGGING:
        for entry, reason in log_handlers.misplaced(content[section], roots):
            outside.append((f"hydra.{section}.{entry}", reason))
    for key, reason in outside:
        if not _granted(key, trusted):
            raise ConfigError(
                f"`{key}`{f' of {foreign}' * bool(foreign)} {reason}: a run acts within its folder. If you trust it, "
                f"type `'trusted=[{key}]'`."
            )


def _outside(hydra: DictConfig, home: Path | None) -> Iterator[tuple[str, str]]:
    """The keys that act on other programs or folders: (key, reason)."""
    for name in OmegaConf.select(hydra, "job.env_set") or ():
        yield f"hydra.job.env_set.{name}", "sets an environment variable"
    launcher = _resolved(hydra, "launcher")
    if str(launcher.get("_target_")).startswith(f"{CLUSTER}."):
        for key, value in launcher.items():
            if (key in COMMANDS and value) or "\n" in str(value):
                yield f"hydra.launcher.{key}", "is handed to other programs"
    subfolders = {"hydra.output_subdir": hydra.get("output_subdir")}
    folders: Iterable[tuple[str, Path]] = ()
    # a saved sweep stays in its folder: the keys of folders are not used again
    if home is None:
        subfolders["hydra.sweep.subdir"] = hydra.sweep.get("subdir")
        folders = _folders(hydra)
    for key, name in subfolders.items():
        if name and (Path(str(name)).is_absolute() or ".." in Path(str(name)).parts):
            yield key, f"is {name}"
    for key, folder in folders:
        if not folder.is_relative_to(lookup.outputs().resolve()):
            yield key, f"is {folder}"


def _folders(hydra: DictConfig) -> Iterator[tuple[str, Path]]:
    for key in ("run.dir", "sweep.dir"):
        try:
            folder = OmegaConf.select(hydra, key)
        except OmegaConfBaseException:
            continue  # told where it is needed
        if folder:
            yield f"hydra.{key}", Path(str(folder)).resolve()


def _granted(key: str, trusted: Sequence[str]) -> bool:
    """True if the key is trusted, or a key above or below it."""
    return any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in trusted)


def _resolved(hydra: DictConfig, section: str) -> Any:
    try:
        node = OmegaConf.select(hydra, section)
        # what an interpolation leads to counts, for that is called
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else {}
    except OmegaConfBaseException as error:
        raise ConfigError(f"`hydra.{section}` cannot be resolved: {str(error).splitlines()[0]}.") from error


@contextmanager
def _placed(hydra: DictConfig) -> Iterator[None]:
    """Give values to the keys that Hydra sets for a run."""
    places = [(hydra.runtime, "output_dir", str(_RUN)), (hydra.job, "num", 0), (hydra.job, "id", "0")]
    before = [(node, key, "???" if OmegaConf.is_missing(node, key) else node.get(key)) for node, key, _ in places]
    _set(hydra, places)
    try:
        yield
    finally:
        _set(hydra, before)


def _set(hydra: DictConfig, values: Sequence[tuple[DictConfig, str, Any]]) -> None:
    with read_write(hydra), open_dict(hydra):
        for node, key, value in values:
            node[key] = value


def _names_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Each class or function in a value, with its key."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("_target_", "()", "class"):  # the last two: `logging.config`
                yield f"{where}.{key}", str(inner)
            yield from _names_in(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _names_in(inner, f"{where}[{position}]")
    elif isinstance(value, str) and value.startswith("ext://") and not value.startswith("ext://sys.std"):
        yield where, value.removeprefix("ext://")
