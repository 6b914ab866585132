"""The plan of a run in optimizer steps: how many, and at which the loop looks up."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dlrun.errors import ConfigError

_INTERVAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|s|sec|seconds?|min|minutes?)?\s*")


_EXPECTED = {
    False: "Give a number of steps or epochs: 100, or '2 epochs'.",
    True: "Give a number of steps or epochs, or a time: 100, '2 epochs', '30 s', '5 min'.",
}
"""What an interval may be, without times and with them."""


@dataclass(frozen=True)
class Plan:
    """When a run ends, logs, evaluates and saves; all in optimizer steps but `checkpoint_seconds`."""

    steps: int
    per_epoch: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int | None = None
    checkpoint_seconds: float | None = None

    def epoch(self, step: int) -> float:
        """Return how many times the training split has been seen after `step` steps."""
        return step / self.per_epoch

    def logs(self, step: int) -> bool:
        """Return whether a point of the curves is due after `step` steps."""
        return step % self.log_every == 0 or step == self.steps

    def evaluates(self, step: int) -> bool:
        """Return whether a validation is due after `step` steps."""
        return step % self.evaluate_every == 0 or step == self.steps

    def block(self, step: int, most: int) -> int:
        """Return how many steps may be taken at once after `step` steps: up to the next point where the loop looks up.

        Blocks begin at multiples of `most` and of the intervals, wherever a run was resumed.

        >>> plan = Plan(steps=100, per_epoch=30, log_every=20, evaluate_every=30)
        >>> [plan.block(step, 8) for step in (0, 8, 16, 20, 24, 30, 98)]
        [8, 8, 4, 4, 6, 2, 2]
        """
        intervals = (most, self.log_every, self.evaluate_every, self.checkpoint_every or most)
        ends = [step - step % interval + interval for interval in intervals]
        return max(1, min(*ends, self.steps) - step) if step < self.steps else 1

    def saves(self, step: int, seconds: float) -> bool:
        """Return whether a checkpoint is due after `step` steps, `seconds` after the last."""
        if self.checkpoint_seconds is not None:
            return seconds >= self.checkpoint_seconds
        return bool(self.checkpoint_every) and step % (self.checkpoint_every or 1) == 0


def in_steps(value: int | str, per_epoch: int, *, where: str) -> int:
    """Return an interval as a number of steps.

    >>> in_steps("2 epochs", 50, where="trainer.evaluate_every")
    100

    Raises `ConfigError` for an interval of time or what is no interval.
    """
    number, unit = _parse(value, where, times=False)
    if unit.startswith(("s", "m")) and not unit.startswith("step"):
        raise ConfigError(f"{where}=`{value}` is a time. {_EXPECTED[False]}")
    return max(1, round(number * per_epoch) if unit.startswith("epoch") else int(number))


def checkpoints(value: int | str, per_epoch: int, *, where: str) -> dict[str, float | int]:
    """Return the fields of a `Plan` that an interval of steps, epochs or time stands for."""
    number, unit = _parse(value, where, times=True)
    if unit.startswith("m"):
        return {"checkpoint_seconds": number * 60}
    if unit.startswith("s") and not unit.startswith("step"):
        return {"checkpoint_seconds": number}
    return {"checkpoint_every": in_steps(value, per_epoch, where=where)}


def _parse(value: int | str, where: str, *, times: bool) -> tuple[float, str]:
    match = _INTERVAL.fullmatch(str(value))
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{where}=`{value}` is no interval above 0. {_EXPECTED[times]}")
    return float(match[1]), match[2] or "steps"
