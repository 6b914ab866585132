"""The changes of a run's configuration by `dlrun resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from omegaconf import DictConfig, OmegaConf

from dlrun.config.settings import Cost, Tracking
from dlrun.errors import ConfigError, did_you_mean
from dlrun.terminal import output

CHANGEABLE = [
    *(
        f"trainer.{key}"
        for key in ("epochs", "steps", "minutes", "patience", "on_spike", "device", "devices", "strategy", "workers")
    ),
    *(f"trainer.{key}_every" for key in ("evaluate", "checkpoint", "log")),
    *("trainer.figures", "evaluation.test", "evaluation.batch_size"),
    *(f"tracking.{field.name}" for field in fields(Tracking)),
    *(f"cost.{field.name}" for field in fields(Cost)),
]
"""How long a run trains and how it is watched; never what it learns, or from what."""

LENGTHS = [f"trainer.{key}" for key in ("minutes", "steps", "epochs")]
"""The first that is given holds."""


def change(config: DictConfig, overrides: Sequence[str], *, run: str) -> None:
    """Change the configuration of the run with the id `run`.

    Raises `ConfigError` for a key that cannot be changed.
    """
    for override in overrides:
        name, equals, value = override.partition("=")
        # an observer may be taken away, not put in the middle of a run
        if name.startswith("observers.") and (name.count("."), value) == (1, "null"):
            _check_there(config, name)
        elif not equals or name not in CHANGEABLE:
            raise ConfigError(
                f"`{override}` cannot be changed on resume.{did_you_mean(name, CHANGEABLE)}"
                f"\nThese keys can: {', '.join(CHANGEABLE)}, and observers.NAME=null.\n{_instead(name, run)}"
            )
    config.merge_with_dotlist([*overrides])
    _give_way(config, [override.partition("=")[0] for override in overrides])


def _check_there(config: DictConfig, name: str) -> None:
    known = [f"observers.{each}" for each in config.get("observers") or {}]
    if name not in known:
        raise ConfigError(
            f"`{name}=null`: the run has no such observer.{did_you_mean(name, known)} "
            f"It has {', '.join(known) or 'none'}."
        )


def _instead(name: str, run: str) -> str:
    if name.partition(".")[0] == "dataset":
        # of other samples, these weights may know those that are to judge the new run
        return "For other data, or another split of it, train a new run from its first step: `dlrun train …`."
    return f"For anything else train a new run: `dlrun train init_from={run} …` begins with these weights."


def _give_way(config: DictConfig, given: Sequence[str]) -> None:
    """Set the lengths before a newly given one to null."""
    last = max((i for i, key in enumerate(LENGTHS) if key in given), default=0)
    for key in LENGTHS[:last]:
        value = OmegaConf.select(config, key)
        if value is not None and key not in given:
            output.say(f"{key}={value} no longer holds: {LENGTHS[last]} does")
            OmegaConf.update(config, key, None)
