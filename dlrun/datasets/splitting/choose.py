"""The rule of a data set's options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.splitting.rules import AtRandom, Grouped, InTime, SplitRule, Stratified
from dlrun.errors import ConfigError, DataError
from dlrun.terminal.format import counted


@dataclass(frozen=True, eq=False)
class Splitting:
    """How samples are split.

    With `stratify` each class has its share of every split; `groups` [N], numbered from 0, are never in two; by `times`
    [N] training is before validation, and validation before the test. With `folds` the part `fold` of that many is the
    validation split.
    """

    stratify: bool = False
    groups: Tensor | None = None
    times: Tensor | None = None
    folds: int | None = None
    fold: int | None = None

    @classmethod
    def of(
        cls,
        *,
        stratify: bool = False,
        groups: Any = None,
        times: Any = None,
        folds: int | None = None,
        fold: int | None = None,
    ) -> Splitting:
        """The same of tensors, arrays or lists; groups may be texts.

        Raises `DataError` for times that are no finite numbers.
        """
        time = None if times is None else torch.from_numpy(_array(times).astype("float64"))
        if time is not None and not bool(time.isfinite().all()):
            raise DataError("The times are not all finite numbers.")
        return cls(stratify, None if groups is None else _numbered(groups), time, folds, fold)

    @property
    def part(self) -> tuple[int, int] | None:
        """(folds, fold), if there are any."""
        return None if self.folds is None or self.fold is None else (self.folds, self.fold)

    def rule(self, y: Tensor, classes: int | None, group_order: Callable[[int], Tensor]) -> SplitRule:
        """The rule for samples with the targets `y` [N].

        Raises `ConfigError` for options that exclude one another.
        """
        given = [
            name
            for name, value in (("group", self.groups), ("time", self.times), ("stratify", self.stratify or None))
            if value is not None
        ]
        if len(given) > 1:
            raise ConfigError(f"dataset.{given[0]} and dataset.{given[1]} are two ways to split. Give one of them.")
        self._check_folds()
        if self.stratify:
            if classes is None:
                raise ConfigError("dataset.stratify=true: only classes can be stratified. Type dataset.stratify=false.")
            return Stratified(y.to(torch.int64))
        if self.groups is not None:
            return Grouped(self.groups, group_order(int(self.groups.max()) + 1))
        return AtRandom() if self.times is None else InTime(self.times)

    def _check_folds(self) -> None:
        folds, fold = self.folds, self.fold
        if folds is None and fold is None:
            return
        if folds is None or fold is None:
            raise ConfigError(
                f"dataset.folds={_typed(folds)} dataset.fold={_typed(fold)}: both are needed. Type for example "
                "dataset.folds=5 dataset.fold=0, or for all folds: dlrun train -m … dataset.folds=5 "
                "'dataset.fold=range(5)'."
            )
        if folds < 2:
            raise ConfigError(f"dataset.folds={folds}: expected at least 2.")
        if not 0 <= fold < folds:
            raise ConfigError(f"dataset.fold={fold}: expected 0 to {folds - 1}, for dataset.folds={folds}.")


def _array(values: Any) -> Any:
    import numpy

    # a table of pandas has a method of its own
    array = numpy.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.dtype.kind == "M":  # dates, as days
        if numpy.isnat(array).any():
            raise DataError("The times are not all there: some are NaT.")
        return array.astype("datetime64[us]").astype("int64") / 86_400_000_000
    if array.dtype.kind not in "biuf":
        raise DataError(f"The times are of type {array.dtype}; expected numbers or dates.")
    if array.dtype.kind in "iu" and array.size and int(abs(array).max()) > 2**53:
        # only their order matters, and float64 takes such for one another
        return numpy.unique(array, return_inverse=True)[1]
    return array


def _numbered(groups: Any) -> Tensor:
    """Groups as numbers from 0 on, in the order of their values."""
    import numpy

    array = numpy.asarray(groups.to_numpy() if hasattr(groups, "to_numpy") else groups)
    plain = array if array.dtype.kind in "biufUSM" else array.astype(str)
    if array.size and (missing := [value for value in array.reshape(-1).tolist() if _is_missing(value)]):
        raise DataError(f"The groups of {counted(len(missing), 'sample', ',')} are missing.")
    return torch.from_numpy(numpy.unique(plain, return_inverse=True)[1].astype("int64"))


def _is_missing(value: Any) -> bool:
    # NaN and NaT are not equal to themselves; pandas' NA is neither
    return value is None or str(value) in ("<NA>", "NaT") or (isinstance(value, float) and value != value)


def _typed(value: int | None) -> str:
    return "null" if value is None else str(value)
