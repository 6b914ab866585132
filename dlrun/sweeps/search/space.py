"""The space that is searched, read from Hydra's own syntax for sweeps.

    optimizer=sgd,adam  model.width=range(16,129,16)  optimizer.lr=tag(log, interval(1e-4, 1e-1))

A value is handed on as text, the right side of an override, so that a trial is an ordinary job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from dlrun.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Dimension(Protocol):
    """One key that takes several values."""

    @property
    def values(self) -> Sequence[Any] | None:
        """Return all its values, or None where there is a continuum of them."""

    @property
    def ends(self) -> tuple[Any, Any]:
        """Return the first and the last value."""

    def distribution(self) -> BaseDistribution:
        """Return it as Optuna knows it."""

    def text(self, value: Any) -> str:
        """Return a value that Optuna suggests as text."""


@dataclass(frozen=True)
class Choice:
    """Values without an order."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, str]:
        """Return the first and the last."""
        return self.values[0], self.values[-1]

    def distribution(self) -> BaseDistribution:
        """Return a categorical distribution over the texts."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def text(self, value: Any) -> str:
        """Return the value itself."""
        return str(value)


@dataclass(frozen=True)
class Steps:
    """Evenly spaced numbers: those that Hydra's `range` gives, in rising order, `step` apart."""

    values: tuple[float, ...]
    step: float = 1
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest."""
        return self.values[0], self.values[-1]

    def distribution(self) -> BaseDistribution:
        """Return a distribution over whole numbers, or over floats with a step."""
        from optuna.distributions import FloatDistribution, IntDistribution

        low, high = self.ends
        if isinstance(low, int):
            return IntDistribution(low, int(high), log=self.log, step=int(self.step))
        # Optuna asks that the range is a multiple of the step, in decimals
        end = Decimal(str(low)) + Decimal(str(self.step)) * (len(self.values) - 1)
        return FloatDistribution(low, float(end), step=self.step)

    def text(self, value: Any) -> str:
        """Return the number of the range that is nearest to `value`, which rounding may have moved."""
        return repr(min(self.values, key=lambda given: abs(given - value)))


@dataclass(frozen=True)
class Interval:
    """All numbers, or all whole numbers, from `low` to `high`; `log`: even in the logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def values(self) -> Sequence[int] | None:
        """Return the whole numbers; None for an interval of floats."""
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lower and the upper end."""
        return self.low, self.high

    def distribution(self) -> BaseDistribution:
        """Return a distribution over floats or whole numbers."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """Return a number with six significant digits, which is as legible as it is exact enough.

        >>> Interval(1e-4, 0.1, log=True).text(0.00123456789)
        '0.00123457'
        """
        if self.whole:
            return str(int(value))
        rounded = f"{value:.6g}"
        return rounded if self.low <= float(rounded) <= self.high else repr(float(value))


@dataclass(frozen=True)
class Space:
    """The dimensions by key, the seeds that each trial is run with, and the overrides that all trials share."""

    dimensions: Mapping[str, Dimension]
    seeds: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def overrides(self, params: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return the overrides of a trial's jobs: one for each seed, or one."""
        own = tuple(f"{key}={dimension.text(params[key])}" for key, dimension in self.dimensions.items())
        return [(*own, f"seed={seed}") for seed in self.seeds] or [own]

    def plain(self) -> dict[str, Any]:
        """Return the space as plain values, of which `of` makes it again."""
        kinds = {key: {"kind": type(d).__name__} | asdict(d) for key, d in self.dimensions.items()}  # type: ignore[call-overload]
        return {"dimensions": kinds, "seeds": [*self.seeds], "fixed": [*self.fixed]}

    def size(self) -> int | None:
        """Return how many points there are; None where there is a continuum of them."""
        values = [dimension.values for dimension in self.dimensions.values()]
        return prod(len(found) for found in values if found is not None) if None not in values else None


def of(plain: Mapping[str, Any]) -> Space:
    """Return the space that `Space.plain` described."""
    kinds = {"Choice": Choice, "Steps": Steps, "Interval": Interval}
    dimensions: dict[str, Dimension] = {}
    for key, fields in plain["dimensions"].items():
        values = {"values": tuple(fields["values"])} if "values" in fields else {}
        dimensions[key] = kinds[fields["kind"]](**{k: v for k, v in fields.items() if k != "kind"} | values)
    return Space(dimensions, tuple(plain["seeds"]), tuple(plain["fixed"]))


def read(overrides: Sequence[str], loader: ConfigLoader | None = None) -> Space:
    """Return the space that overrides describe; of one key the last counts.

    >>> read(["model.width=range(16,49,16)", "optimizer.lr=tag(log, interval(0.001, 0.1))"]).dimensions
    {'model.width': Steps(values=(16, 32, 48), step=16, log=False),
     'optimizer.lr': Interval(low=0.001, high=0.1, log=True, whole=False)}

    Raises `ConfigError` if there is nothing to search, or a dimension cannot be.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"The search space cannot be read: {error}") from error
    last = {override.get_key_element(): override for override in parsed}
    swept = {key: override for key, override in last.items() if override.is_sweep_override()}
    seeds = _seeds(swept.pop("seed")) if "seed" in swept else ()
    if not swept:
        raise ConfigError(
            "There is nothing to search: give at least one key beside the seed several values, as in "
            "'optimizer.lr=tag(log, interval(1e-4, 1e-1))', 'model.width=range(16,129,16)' or optimizer=sgd,adam."
        )
    fixed = tuple(str(override.input_line) for override in last.values() if not override.is_sweep_override())
    return Space({key: _dimension(override) for key, override in swept.items()}, seeds, fixed)


def _seeds(override: Override) -> tuple[str, ...]:
    if override.is_interval_sweep():
        raise ConfigError(f"`{override.input_line}`: the seed is not searched. Each trial is run with 'seed=range(3)'.")
    return tuple(override.sweep_string_iterator())


def _dimension(override: Override) -> Dimension:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _interval(override, value)
    if isinstance(value, RangeSweep):
        return _steps(override, value)
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError(f"`{override.input_line}` gives no value at all.")
    return Choice(values)


def _interval(override: Override, sweep: IntervalSweep) -> Interval:
    assert sweep.start is not None and sweep.end is not None
    whole = "int" in sweep.tags or (isinstance(sweep.start, int) and isinstance(sweep.end, int))
    if sweep.start > sweep.end:
        raise ConfigError(f"`{override.input_line}`: the interval ends before it begins. Give the smaller end first.")
    log = "log" in sweep.tags
    if log and sweep.start <= 0:
        raise ConfigError(f"`{override.input_line}`: a logarithmic interval begins above zero, not at {sweep.start}.")
    return Interval(sweep.start, sweep.end, log=log, whole=whole)


def _steps(override: Override, sweep: RangeSweep) -> Steps:
    values = tuple(sorted(sweep.range()))
    if not values:
        raise ConfigError(f"`{override.input_line}` gives no value at all.")
    log = "log" in sweep.tags
    whole = all(isinstance(value, int) for value in values)
    if log and (not whole or abs(sweep.step) != 1 or values[0] < 1):
        raise ConfigError(
            f"`{override.input_line}`: a logarithmic range has whole numbers from 1 on and the step 1. "
            "For others write tag(log, interval(…))."
        )
    return Steps(values, abs(sweep.step), log)
