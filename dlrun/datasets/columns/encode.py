"""The encoding of a table's columns: numbers scaled, categories one-hot, gaps filled, all by the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dlrun.datasets.columns.column import Column
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import RawInputs

Missing = Literal["refuse", "mean", "indicator"]


@dataclass(frozen=True)
class EncodeColumn:
    """How the raw values of one column [N] become inputs [N, D].

    A number is (x - mean) / deviation, a missing one `filled`. Of a category the places in `known` have a column each,
    which is 1 for that value; with `other` one more is for the rest. A value that is neither is all zeros, which no
    known value is: that is its own code. A missing category is `filled`, or all zeros. With `indicator` one more column
    is 1 where the value is missing.
    """

    number: bool
    mean: float = 0.0
    deviation: float = 1.0
    known: tuple[int, ...] = ()
    other: bool = False
    filled: tuple[float, ...] = ()
    indicator: bool = False

    def __call__(self, values: Tensor) -> list[Tensor]:
        """Blocks of inputs, each [N, …]."""
        gap = values.isnan()
        if self.number:
            blocks = [torch.where(gap, self.filled[0], (values - self.mean) / self.deviation).float()[:, None]]
        else:
            beyond = values > max(self.known, default=-1)
            places = torch.where(gap, _MISSING, torch.where(beyond, _UNKNOWN, values)).long()
            blocks = [self._rows(values.device)[places]]
        return blocks + ([gap.float()[:, None]] if self.indicator else [])

    def _rows(self, device: torch.device) -> Tensor:
        """The columns of each place, at the end those of a missing and of an unknown value."""
        width = len(self.known) + self.other
        rows = torch.zeros(max(self.known, default=-1) + 3, width, device=device)
        if self.other:
            rows[:, -1] = 1
        for column, place in enumerate(self.known):
            rows[place] = 0
            rows[place, column] = 1
        rows[_MISSING] = torch.tensor(self.filled or (0.0,) * width, device=device)
        return rows


# places in the rows of a category, from their end
_UNKNOWN = -1
_MISSING = -2


@dataclass(frozen=True)
class EncodeColumns:
    """Map raw columns [N, C] to inputs [N, D], float32.

    >>> encode = EncodeColumns((EncodeColumn(True, 1.0, 2.0, filled=(0.0,)), EncodeColumn(False, known=(0, 1))))
    >>> encode(torch.tensor([[3.0, 1.0], [1.0, -1.0]])).tolist()
    [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """

    # its repr is part of a data set's fingerprint: another field ends the reuse of earlier runs
    columns: tuple[EncodeColumn, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Prepared inputs, float32 [N, D].

        Raises `DataError` for another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.columns):
            raise DataError(f"The inputs have shape {list(x.shape)}; expected [N, {len(self.columns)}].")
        x = x.double()  # float32 has no room for a time in seconds
        each = zip(self.columns, x.T, strict=True)
        return torch.cat([block for encode, values in each for block in encode(values)], 1)

    @property
    def mean(self) -> tuple[float, ...]:
        """What is taken from each column; 0 from a category."""
        return tuple(each.mean for each in self.columns)

    @property
    def deviation(self) -> tuple[float, ...]:
        """What each column is divided by; 1 for a category."""
        return tuple(each.deviation for each in self.columns)

    def undo(self, x: Tensor) -> Tensor:
        """Raw columns of prepared ones, float32 [N, C].

        Raises `DataError` where a column is no number, or has an input that says whether it is missing.
        """
        if not all(each.number and not each.indicator for each in self.columns):
            raise DataError("The inputs have categories, or marks of missing values: numbers do not give them back.")
        return x * x.new_tensor(self.deviation) + x.new_tensor(self.mean)


@dataclass(frozen=True, eq=False)
class TableEncoding:
    """How the columns of a table are encoded.

    Values of a category with fewer than `min_count` training rows share a column, which values that are not known get
    too.
    """

    columns: Sequence[Column]
    missing: Missing = "refuse"
    normalise: bool = True
    min_count: int = 1

    def fit(self, x: Tensor) -> EncodeColumns:
        """The encoding by the training rows [N, C]."""
        gaps = x.isnan().any(0).tolist()
        found = [self._category(values) if column.texts else self._number(values) for column, values in self._each(x)]
        return EncodeColumns(
            tuple(
                replace(each, indicator=gap and self.missing == "indicator")
                for each, gap in zip(found, gaps, strict=True)
            )
        )

    def report(self, splits: Mapping[str, Tensor]) -> None:
        """Say which values of validation and test the training rows lack, and which inputs these do not vary."""
        train = splits["train"]
        for i, column in enumerate(self.columns):
            known = torch.unique(train[:, i][~train[:, i].isnan()])
            if len(known) < 2 and len(torch.unique(column.present)) > 1:
                output.warn(f"`{column.name}` has one value in all training rows: nothing is learned from it.")
            if not column.texts:
                continue
            for split in ("validation", "test"):
                values = splits.get(split, train)[:, i]
                unknown = values[~torch.isin(values, known) & ~values.isnan()]
                if len(unknown):
                    texts = [column.texts[int(place)] for place in torch.unique(unknown)[:3]]
                    output.warn(
                        f"In {counted(len(unknown), f'{split} row', ',')} `{column.name}` has a value that no training "
                        f"row has, such as {', '.join(texts)}: unknown values share a code."
                    )

    def describe(self, x: Tensor) -> RawInputs:
        """The raw columns, for files of new rows."""
        given = [values for _, values in self._each(x)]
        ends = [(float(values.min()), float(values.max())) if len(values) else (0.0, 0.0) for values in given]
        return RawInputs(
            (x.shape[1],),
            "float64",
            tuple(low for low, _ in ends),
            tuple(high for _, high in ends),
            columns=tuple(column.name for column in self.columns),
            kinds=tuple(column.kind for column in self.columns),
            texts=tuple(column.texts for column in self.columns),
            missing=self.missing,
        )

    def _each(self, x: Tensor) -> list[tuple[Column, Tensor]]:
        """The columns with their values that are there."""
        return [(column, values[~values.isnan()]) for column, values in zip(self.columns, x.T, strict=True)]

    def _number(self, values: Tensor) -> EncodeColumn:
        mean = float(values.mean()) if len(values) else 0.0
        if not self.normalise:
            return EncodeColumn(True, filled=(mean,))
        deviation = float(values.std(correction=0)) if len(values) else 0.0
        # rounding leaves a constant column slightly above 0
        constant = deviation <= 1e-12 * abs(mean)
        return EncodeColumn(True, mean, 1.0 if constant else deviation, filled=(0.0,))

    def _category(self, values: Tensor) -> EncodeColumn:
        counts = torch.bincount(values.long())
        known = (counts >= max(1, self.min_count)).nonzero().flatten().tolist()
        rest = len(values) - int(counts[known].sum())
        shares = [int(counts[place]) / len(values) for place in known] + ([rest / len(values)] if rest else [])
        filled = tuple(shares) if self.missing == "mean" else ()
        return EncodeColumn(False, known=tuple(known), other=rest > 0, filled=filled)
