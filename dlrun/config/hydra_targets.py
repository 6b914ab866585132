"""What Hydra's own part of a configuration may call: plugins, callbacks and log handlers.

Hydra refuses a few names itself, with a traceback and after it has begun. Here they are looked at once, before it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.config.allowlist import allows
from dlrun.errors import ConfigError

PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins", "hydra.experimental")
HANDLERS = ("logging", "colorlog", "rich.logging")
"""Packages whose formatters and handlers a logging configuration may name."""


def check(hydra: DictConfig, *, trusted: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for a class that is neither of these packages, nor the user's own, nor trusted."""
    for section, packages in (
        *((name, PLUGINS) for name in ("launcher", "sweeper", "callbacks")),
        *((name, HANDLERS) for name in ("job_logging", "hydra_logging")),
    ):
        content = OmegaConf.to_container(hydra[section]) if section in hydra and hydra[section] is not None else {}
        for key, name in _named(content, f"hydra.{section}"):
            if not allows(name, trusted=trusted, packages=packages):
                raise ConfigError(
                    f"`{key}={name}` is not allowed: expected a class of {', '.join(packages)}, or of a module in this "
                    f"folder. If you trust it, type `trusted=[{name}]`."
                )


def _named(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield each class or function that a value names, with its key; a logging configuration names by three keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("_target_", "()", "class"):
                yield f"{where}.{key}", str(inner)
            yield from _named(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _named(inner, f"{where}[{position}]")
    elif isinstance(value, str) and value.startswith("ext://") and not value.startswith("ext://sys.std"):
        yield where, value.removeprefix("ext://")
