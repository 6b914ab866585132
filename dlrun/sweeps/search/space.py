"""The space of a search, read from Hydra's own syntax for sweeps.

    optimizer=sgd,adam  model.width=range(16,129,16)  optimizer.lr=tag(log, interval(1e-4, 1e-1))

A value becomes text, the right side of an override. So a trial is an ordinary job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from dlrun.errors import ConfigError
from dlrun.storage.files.record import misfit
from dlrun.storage.jobs.job import REPLICATED

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Dimension(Protocol):
    """The values of one key."""

    @property
    def values(self) -> Sequence[Any] | None:
        """All values; None for a continuum."""

    @property
    def ends(self) -> tuple[Any, Any]:
        """The first and the last value."""

    def distribution(self) -> BaseDistribution:
        """The dimension as Optuna has it."""

    def text(self, value: Any) -> str:
        """A value of Optuna's as an override's right side."""


@dataclass(frozen=True)
class ChoiceDimension:
    """Texts without an order: `optimizer=sgd,adam`."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, str]:
        return self.values[0], self.values[-1]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def text(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class RangeDimension:
    """Numbers in rising order, `step` apart: `model.width=range(16,129,16)`."""

    values: tuple[float, ...]
    step: float = 1
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        return self.values[0], self.values[-1]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        low, high = self.ends
        if isinstance(low, int):
            return IntDistribution(low, int(high), log=self.log, step=int(self.step))
        # Optuna asks that the range is a multiple of the step, in decimals
        end = Decimal(str(low)) + Decimal(str(self.step)) * (len(self.values) - 1)
        return FloatDistribution(low, float(end), step=self.step)

    def text(self, value: Any) -> str:
        # the nearest of them, for Optuna rounds
        return repr(min(self.values, key=lambda given: abs(given - value)))


@dataclass(frozen=True)
class IntervalDimension:
    """Numbers from `low` to `high`, all or `whole` ones.

    `log`: even in the logarithm, as `optimizer.lr=tag(log, interval(1e-4, 1e-1))`.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def values(self) -> Sequence[int] | None:
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """The number with six significant digits: exact enough, and legible.

        >>> IntervalDimension(1e-4, 0.1, log=True).text(0.00123456789)
        '0.00123457'
        """
        if self.whole:
            return str(int(value))
        rounded = f"{value:.6g}"
        return rounded if self.low <= float(rounded) <= self.high else repr(float(value))


@dataclass(frozen=True)
class Space:
    """Dimensions by key, and the seeds of each trial; `repeated` are overrides of its folds and splits.

    All jobs share the `fixed` overrides. `lacks` are the keys that some values of `choices` do not have: they are not
    proposed with these.
    """

    dimensions: Mapping[str, Dimension]
    seeds: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    lacks: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    repeated: tuple[tuple[str, ...], ...] = ()

    @property
    def common(self) -> dict[str, Dimension]:
        """The dimensions that every trial has."""
        some = {key for keys in self.lacks.values() for key in keys}
        return {key: dimension for key, dimension in self.dimensions.items() if key not in some}

    @property
    def order(self) -> list[str]:
        """The keys as they are proposed: first those that decide which others there are."""
        return sorted(self.dimensions, key=lambda key: key not in self.choices) if self.lacks else [*self.dimensions]

    def has(self, key: str, params: Mapping[str, Any]) -> bool:
        """A trial with the choices of `params` has the key."""
        return key not in self.lacks.get(tuple(str(params.get(choice)) for choice in self.choices), ())

    def overrides(self, params: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """The overrides of a trial's jobs, one a repetition."""
        own = tuple(f"{key}={d.text(params[key])}" for key, d in self.dimensions.items() if self.has(key, params))
        seeds: list[tuple[str, ...]] = [(f"seed={seed}",) for seed in self.seeds] or [()]
        return [(*own, *seed, *each) for seed, each in product(seeds, self.repeated or [()])]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        names = {kind: name for name, kind in KINDS.items()}
        dimensions = {key: {"kind": names[type(d)]} | asdict(d) for key, d in self.dimensions.items()}  # type: ignore[call-overload]
        conditions = {"choices": [*self.choices], "lacks": [[[*at], [*keys]] for at, keys in self.lacks.items()]}
        return {"dimensions": dimensions, "seeds": [*self.seeds], "fixed": [*self.fixed], **conditions} | (
            {"repeated": [[*each] for each in self.repeated]} if self.repeated else {}
        )

    def size(self) -> int | None:
        """The number of points; None for a continuum."""
        values = {key: dimension.values for key, dimension in self.dimensions.items()}
        if None in values.values():
            return None
        if not self.lacks:
            return prod(len(found or ()) for found in values.values())
        chosen = product(*(values[key] or () for key in self.choices))
        return sum(self._size_at(dict(zip(self.choices, each, strict=True))) for each in chosen)

    def _size_at(self, chosen: Mapping[str, Any]) -> int:
        rest = [d.values or () for key, d in self.dimensions.items() if key not in chosen and self.has(key, chosen)]
        return prod(map(len, rest))


KINDS: dict[str, type[Any]] = {
    # not the names of the classes: those may change, the files stay
    "Choice": ChoiceDimension,
    "Steps": RangeDimension,
    "Interval": IntervalDimension,
}
"""The dimensions by their names in search.json."""


def from_dict(plain: Mapping[str, Any]) -> Space:
    """The inverse of `Space.to_dict`.

    Raises `KeyError`, `TypeError`, `AttributeError` or `ValueError` for what is no space.
    """
    dimensions = {key: _dimension_of(key, fields) for key, fields in plain["dimensions"].items()}
    choices = tuple(map(str, plain.get("choices", ())))  # searches of before 0.3 have no conditions
    lacks = {tuple(map(str, at)): tuple(map(str, keys)) for at, keys in plain.get("lacks", ())}
    if not {*choices} <= dimensions.keys() or any(len(at) != len(choices) for at in lacks):
        raise ValueError("its choices are none of its dimensions")
    repeated = tuple(tuple(map(str, each)) for each in plain.get("repeated", ()))
    return Space(dimensions, tuple(map(str, plain["seeds"])), tuple(map(str, plain["fixed"])), choices, lacks, repeated)


def _dimension_of(key: str, fields: Mapping[str, Any]) -> Dimension:
    given, kind = {name: value for name, value in fields.items() if name != "kind"}, KINDS[fields["kind"]]
    found = misfit(given, kind)
    if found or not given.get("values", [None]):
        raise ValueError(f"the dimension {key} has {found or 'no values'}")
    values = {"values": tuple(given["values"])} if "values" in given else {}
    made: Dimension = kind(**given | values)
    low, high = made.ends
    if kind is not ChoiceDimension and (low > high or given.get("step", 1) <= 0 or (given.get("log") and low <= 0)):
        raise ValueError(f"the dimension {key} has no such range: {given}")
    return made


def read(overrides: Sequence[str], loader: ConfigLoader | None = None) -> Space:
    """The space of some overrides; a key's last one counts.

    >>> read(["model.width=range(16,49,16)", "optimizer.lr=tag(log, interval(0.001, 0.1))"]).dimensions
    {'model.width': RangeDimension(values=(16, 32, 48), step=16, log=False),
     'optimizer.lr': IntervalDimension(low=0.001, high=0.1, log=True, whole=False)}

    Raises `ConfigError` if there is nothing to search, or for an invalid range.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"The search space cannot be read: {error}") from error
    last = {override.get_key_element(): override for override in parsed}
    swept = {key: override for key, override in last.items() if override.is_sweep_override()}
    seeds, *others = [_seeds(swept.pop(key)) if key in swept else () for key in REPLICATED]
    named = [
        [f"{key}={value}" for value in values] for key, values in zip(REPLICATED[1:], others, strict=True) if values
    ]
    if not swept:
        raise ConfigError(
            "There is nothing to search: give at least one key beside the seed several values, as in "
            "'optimizer.lr=tag(log, interval(1e-4, 1e-1))', 'model.width=range(16,129,16)' or optimizer=sgd,adam."
        )
    fixed = tuple(str(override.input_line) for override in last.values() if not override.is_sweep_override())
    dimensions = {key: _dimension(override) for key, override in swept.items()}
    return Space(dimensions, seeds, fixed, repeated=tuple(product(*named)) if named else ())


def _seeds(override: Override) -> tuple[str, ...]:
    if override.is_interval_sweep():
        key = override.get_key_element()
        raise ConfigError(f"`{override.input_line}`: {key} is not searched. Each trial is run with '{key}=range(3)'.")
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
    return ChoiceDimension(values)


def _interval(override: Override, sweep: IntervalSweep) -> IntervalDimension:
    assert sweep.start is not None and sweep.end is not None
    whole = "int" in sweep.tags or (isinstance(sweep.start, int) and isinstance(sweep.end, int))
    if sweep.start > sweep.end:
        raise ConfigError(f"`{override.input_line}`: the interval ends before it begins. Give the smaller end first.")
    log = "log" in sweep.tags
    if log and sweep.start <= 0:
        raise ConfigError(f"`{override.input_line}`: a logarithmic interval begins above zero, not at {sweep.start}.")
    return IntervalDimension(sweep.start, sweep.end, log=log, whole=whole)


def _steps(override: Override, sweep: RangeSweep) -> RangeDimension:
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
    return RangeDimension(values, abs(sweep.step), log)
