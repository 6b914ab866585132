"""The allow list of plugins, callbacks and log handlers of Hydra.

Hydra refuses a few names itself, but late and with a traceback. Here all are checked before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.config.allowlist import allows
from dlrun.errors import ConfigError

PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins", "hydra.experimental")
HANDLERS = ("logging", "colorlog", "rich.logging")
"""Packages of formatters and handlers for logging."""


def check(hydra: DictConfig, *, trusted: Sequence[str] = ()) -> None:
    """Refuse a class that is not allowed.

    Raises `ConfigError` for one outside of these packages, unless it is the user's or trusted.
    """
    for section, packages in (
        *((name, PLUGINS) for name in ("launcher", "sweeper", "callbacks")),
        *((name, HANDLERS) for name in ("job_logging", "hydra_logging")),
    ):
        content = OmegaConf.to_container(hydra[section]) if section in hydra and hydra[section] is not None else {}
        for key, name in _names_in(content, f"hydra.{section}"):
            if not allows(name, trusted=trusted, packages=packages):
                raise ConfigError(
                    f"`{key}={name}` is not allowed: expected a class of {', '.join(packages)}, or of a module in this "
                    f"folder. If you trust it, type `trusted=[{name}]`."
                )


def check_record(hydra: DictConfig, *, trusted: Sequence[str] = ()) -> None:
    """Check Hydra's part of a saved sweep, which may come from somebody else.

    Raises `ConfigError` as `check` does, and for whatever a job would do outside of its folder: environment variables
    (`LD_PRELOAD` runs code) and log files elsewhere.
    """
    check(hydra, trusted=trusted)
    handlers = OmegaConf.select(hydra, "job_logging.handlers") or {}
    files = [str(OmegaConf.to_container(each).get("filename", "")) for each in handlers.values()]  # type: ignore[union-attr]
    for key, suspicious in (
        ("hydra.job.env_set", bool(OmegaConf.select(hydra, "job.env_set"))),
        ("hydra.job_logging", any(name and not _in_run_folder(name) for name in files)),
    ):
        if suspicious and key not in trusted:
            raise ConfigError(
                f"The saved sweep sets `{key}`, which acts outside of its folder. If you trust it, type"
                f" `trusted=[{key}]`."
            )


def _in_run_folder(name: str) -> bool:
    return name.startswith("${hydra.runtime.output_dir}/") and ".." not in name


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
