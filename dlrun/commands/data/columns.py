"""The columns of a vector or a table, in numbers and categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from math import floor

import torch
from torch import Tensor

from dlrun.datasets.columns.encode import EncodeColumn, EncodeColumns
from dlrun.terminal.format import number, table
from dlrun.types import RawInputs

COLUMNS = 30
"""That are listed one by one."""

TEXTS = 5
"""Values of a category that are listed."""


def undo(encode: EncodeColumns, x: Tensor) -> Tensor:
    """The raw columns float64 [N, C] of encoded ones [N, D].

    NaN is a missing value that has an indicator; others were filled, and are read as what filled them. The place of a
    category that is not known, or shares a column with others, is -1.

    >>> encode = EncodeColumns((EncodeColumn(True, 1.0, 2.0, filled=(0.0,)), EncodeColumn(False, known=(0, 3))))
    >>> undo(encode, encode(torch.tensor([[3.0, 3.0], [1.0, -1.0]]))).tolist()
    [[3.0, 3.0], [1.0, -1.0]]
    """
    found, start = [], 0
    for column in encode.columns:
        width = _width(column)
        block = x[:, start : start + width].double()
        values = _number(column, block) if column.number else _category(column, block)
        found.append(torch.where(block[:, -1] == 1, torch.nan, values) if column.indicator else values)
        start += width
    return torch.stack(found, 1)


def _width(column: EncodeColumn) -> int:
    return (1 if column.number else len(column.known) + column.other) + column.indicator


def _number(column: EncodeColumn, block: Tensor) -> Tensor:
    # what float32 has kept
    return (block[:, 0] * column.deviation + column.mean).float().double()


def _category(column: EncodeColumn, block: Tensor) -> Tensor:
    known = torch.tensor([*column.known, -1], dtype=torch.float64)
    chosen = block[:, : len(column.known)] == 1
    first = torch.where(chosen.any(1), chosen.long().argmax(1) if len(column.known) else 0, len(column.known))
    return known[first]


def describe(title: str, names: Sequence[str], values: Tensor, inputs: RawInputs | None = None) -> Iterator[str]:
    """A table of the numbers among the columns [N, C], and a line for each category."""
    kinds = inputs.kinds if inputs and inputs.kinds else ("number",) * len(names)
    shown = list(enumerate(zip(names, kinds, strict=True)))[:COLUMNS]
    rows = [[title, "least", "mean", "most", "deviation"]]
    for place, (name, kind) in shown:
        column = values[:, place].double()
        column = column[column.isfinite()]
        if kind != "category" and len(column):
            *ends, deviation = (float(f) for f in (column.min(), column.mean(), column.max(), column.std(correction=0)))
            # a mean of rounded values is no exact 0
            written = [
                day(end) if kind == "date" else number(0.0 if abs(end) < 1e-6 * deviation else end) for end in ends
            ]
            rows.append([name, *written, number(deviation) + (" days" if kind == "date" else "")])
    if len(rows) > 1:
        yield table(rows, indent="    ")
    for place, (name, kind) in shown:
        if kind == "category" and inputs:
            yield f"    {name}  {_categories(values[:, place], inputs.texts[place])}"
    if len(names) > COLUMNS:
        yield f"    … and {len(names) - COLUMNS:,} more"


def day(days: float) -> str:
    """The date so many days after 1970 began.

    >>> day(20786.5), day(-1)
    ('2026-11-29', '1969-12-31')
    """
    return str(date(1970, 1, 1) + timedelta(floor(days)))


def _categories(values: Tensor, texts: Sequence[str]) -> str:
    counts = torch.bincount(values[values >= 0].long(), minlength=len(texts))
    order = counts.argsort(descending=True, stable=True).tolist()
    present = [place for place in order if counts[place]]
    listed = ", ".join(f"{texts[place]} {int(counts[place]):,}" for place in present[:TEXTS])
    rest = int((values == -1).sum()) + int(counts[present[TEXTS:]].sum())
    return f"{len(present):,} values: {listed}" + (f", others {rest:,}" if rest else "")
