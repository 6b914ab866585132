"""The plan of a run in optimizer steps: how many, and which are logging, evaluation and checkpoint steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dlrun.errors import ConfigError

_INTERVAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_UNITS = {
    "steps": ("", "step", "steps"),
    "epochs": ("epoch", "epochs"),
    "seconds": ("s", "sec", "second", "seconds"),
    "minutes": ("min", "minute", "minutes"),
}
_EXPECTED = {
    False: "Give a number of steps or epochs: 100, or '2 epochs'.",
    True: "Give a number of steps or epochs, or a time: 100, '2 epochs', '30 s', '5 min'.",
}
"""Valid intervals, without times and with them."""


@dataclass(frozen=True)
class Plan:
    """When a run ends, logs, evaluates and saves, in steps."""

    steps: int
    per_epoch: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int | None = None
    checkpoint_seconds: float | None = None

    def epoch(self, step: int) -> float:
        """Passes over the training split in `step` steps."""
        return step / self.per_epoch

    def logs(self, step: int) -> bool:
        """Is a point of the curves due after `step` steps?"""
        return step % self.log_every == 0 or step == self.steps

    def evaluates(self, step: int) -> bool:
        """Is a validation due after `step` steps?"""
        return step % self.evaluate_every == 0 or step == self.steps

    def saves(self, step: int, seconds: float) -> bool:
        """Is a checkpoint due, `seconds` after the last one?"""
        # a time ends no block: such a checkpoint may be late by the rest of one, and changes no result
        if self.checkpoint_seconds is not None:
            return seconds >= self.checkpoint_seconds
        return bool(self.checkpoint_every) and step % (self.checkpoint_every or 1) == 0

    def block(self, step: int, most: int) -> int:
        """Steps to take at once after `step` steps.

        They end at the next logging, evaluation or checkpoint step, or earlier. Blocks begin at multiples of `most` and
        of the intervals, wherever a run was resumed.

        >>> plan = Plan(steps=100, per_epoch=30, log_every=20, evaluate_every=30)
        >>> [plan.block(step, 8) for step in (0, 8, 16, 20, 24, 30, 98)]
        [8, 8, 4, 4, 6, 2, 2]
        """
        intervals = (most, self.log_every, self.evaluate_every, self.checkpoint_every or most)
        # the next multiple of each
        ends = [step - step % interval + interval for interval in intervals]
        # past the end too: the loop draws a block before it sees that it is done
        return max(1, min(*ends, self.steps) - step) if step < self.steps else 1


@dataclass(frozen=True)
class Interval:
    """A number of steps, of epochs, or of seconds."""

    number: float
    unit: Literal["steps", "epochs", "seconds"]

    def steps(self, per_epoch: int) -> int:
        """The interval in steps, not for a time.

        >>> parse_interval("2 epochs", where="trainer.evaluate_every").steps(per_epoch=50)
        100
        """
        return max(1, round(self.number * per_epoch) if self.unit == "epochs" else int(self.number))


def parse_interval(value: int | str, *, where: str, times: bool = False) -> Interval:
    """Parse an interval of a configuration.

    `times` allows "30 s" and "5 min". Raises `ConfigError` for other text, and for a time where none is allowed.
    """
    match = _INTERVAL.fullmatch(str(value))
    unit = next((unit for unit, words in _UNITS.items() if match and match[2] in words), None)
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigError(f"{where}=`{value}` is no interval above 0. {_EXPECTED[times]}")
    number = float(match[1])
    if unit == "steps":
        return Interval(number, "steps")
    if unit == "epochs":
        return Interval(number, "epochs")
    if not times:
        raise ConfigError(f"{where}=`{value}` is a time. {_EXPECTED[False]}")
    return Interval(number * 60 if unit == "minutes" else number, "seconds")
