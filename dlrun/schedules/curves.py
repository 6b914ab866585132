"""Learning rates over a run: the factor of `optimizer.lr` at step 0 … steps - 1.

The lengths `warmup`, `decay` and `milestones` are a fraction of the run below 1, else a number of steps. Warm-up is
linear: its n steps have the factors 1/(n+1) … n/(n+1), and the next one has 1. After its last step a curve keeps its
last value. A negative length raises `ConfigError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from dlrun.errors import ConfigError

__all__ = ["constant", "cosine", "geometric", "linear", "one_cycle", "step_decay", "warmup_stable_decay"]


def constant(step: int, steps: int, warmup: float = 0.0) -> float:
    """1 after the warm-up.

    >>> constant(7, 10)
    1.0
    """
    return _rise(step, _length("warmup", warmup, steps))


def step_decay(step: int, steps: int, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> float:
    """`gamma` to the power of the number of milestones passed.

    >>> [step_decay(s, 8) for s in (3, 4)]
    [1.0, 0.1]
    """
    return float(gamma ** sum(step >= _length("milestones", m, steps) for m in milestones))


def cosine(step: int, steps: int, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Half a cosine wave from 1 down to `floor`, after the warm-up.

    Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    >>> round(cosine(5, 10), 9)
    0.5
    """
    n = _length("warmup", warmup, steps)
    return _rise(step, n) if step < n else _cosine(1.0, floor, _progress(step, n, steps))


def linear(step: int, steps: int, warmup: float = 0.0, floor: float = 0.0) -> float:
    """A straight line from 1 down to `floor`, after the warm-up.

    >>> linear(5, 10)
    0.5
    """
    n = _length("warmup", warmup, steps)
    return _rise(step, n) if step < n else 1.0 + (floor - 1.0) * _progress(step, n, steps)


def geometric(step: int, steps: int, factor: float = 1e7) -> float:
    """A rise from 1 to `factor` by equal ratios, for a learning-rate range test.

    `optimizer.lr` is the lowest rate.

    >>> geometric(0, 11, 100.0), geometric(5, 11, 100.0), geometric(10, 11, 100.0)
    (1.0, 10.0, 100.0)
    """
    if not factor > 0:
        raise ConfigError(f"schedule.factor={factor} must be greater than 0. Type for example schedule.factor=1e6")
    return float(factor ** _progress(step, 0, steps - 1))


def one_cycle(
    step: int, steps: int, warmup: float = 0.3, floor: float = 4e-6, shape: Literal["cosine", "linear"] = "cosine"
) -> float:
    """A rise from 1/25 to 1, then a fall to `floor`.

    The rise ends after `warmup`, the fall at the last step. Smith and Topin 2018, arXiv:1708.07120; with the default
    values it is `torch.optim.lr_scheduler.OneCycleLR`.

    >>> one_cycle(2, 10), one_cycle(9, 10)
    (1.0, 4e-06)
    """
    start = 1 / 25  # torch's `div_factor`
    # counted to the last step of the rise, and not rounded, as in torch
    rise = _length("warmup", warmup, steps, whole=False) - 1
    between = _cosine if shape == "cosine" else _line
    if step < rise:
        return between(start, 1.0, step / rise)
    return between(1.0, floor, _progress(step, rise, steps - 1))


def warmup_stable_decay(
    step: int, steps: int, warmup: float = 0.05, decay: float = 0.2, floor: float = 0.0, *, root: bool = False
) -> float:
    """A warm-up, then 1, then a fall to `floor`.

    The fall takes the last `decay`. Hu et al. 2024, arXiv:2404.06395. The fall is linear or, with `root`, 1 -
    √progress (Hägele et al. 2024, arXiv:2405.18392). A run can be made longer from any step before the fall.

    >>> [warmup_stable_decay(s, 100) for s in (50, 90)]
    [1.0, 0.5]
    """
    n = _length("warmup", warmup, steps)
    begin = max(n, steps - _length("decay", decay, steps))
    if step < begin:
        return _rise(step, n)
    progress = _progress(step, begin, steps)
    return _line(1.0, floor, math.sqrt(progress) if root else progress)


def _length(name: str, amount: float, steps: int, *, whole: bool = True) -> float:
    """A length in steps: below 1 a fraction of the run, else a number of steps."""
    if not amount >= 0:
        raise ConfigError(
            f"schedule.{name}={amount}: expected a fraction of the run below 1, or a number of steps. "
            f"Type for example schedule.{name}=0.1 or schedule.{name}=500"
        )
    length = amount * steps if amount < 1 else amount
    return round(length) if whole else length


def _rise(step: int, n: float) -> float:
    # step 0 must not have the factor 0: it would change nothing
    return min(1.0, (step + 1) / (n + 1))


def _progress(step: int, begin: float, end: float) -> float:
    # clamped: a run made longer keeps the last value of its first horizon
    return min(1.0, max(0.0, (step - begin) / (end - begin))) if end > begin else 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
