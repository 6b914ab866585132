"""Columns that look like something else than what their values are taken for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from dlrun.datasets.columns.column import Column, is_number, read

# 1,5 and 1.234,5 and 1,234.5; grouped by points, commas, blanks or apostrophes
_NUMBER = r"[+-]?(\d+,\d+|\d{1,3}(?P<group>[.,'’ \u00a0\u202f])\d{3}((?P=group)\d{3})*([.,]\d+)?|\d+(\.\d+)?)"
_MARK = r"[$€£¥%]?"
_OTHERWISE = re.compile(rf"{_MARK}\s?{_NUMBER}\s?{_MARK}")
_ID = re.compile(r"(.*[_\W])?(?i:id|uuid|key|index)|.*[a-z](Id|ID)")

FIRST, LAST = 19000101, 21001231
"""Numbers between these may be days, written without hyphens."""

ALL_WHOLE = 2.0**53
"""Up to here float64 has all whole numbers."""


def number_written_otherwise(texts: Sequence[str]) -> str | None:
    """One of the texts, if all are numbers and some have decimal commas, grouped digits, a currency or a percent sign.

    >>> number_written_otherwise(["0.5", "1,5"]), number_written_otherwise(["12%", "7 %"])
    ('1,5', '12%')
    >>> number_written_otherwise(["1.2.3", "1.2.4"]), number_written_otherwise(["20-30", "5+"])
    (None, None)
    """
    others = [text for text in texts if not is_number(text)]
    return others[0] if others and all(_OTHERWISE.fullmatch(text) for text in others) else None


def names_the_rows(column: Column) -> str | None:
    """Why a column of numbers looks like one that names the rows; None if it does not."""
    rows, present = len(column.values), column.present
    if column.kind != "number" or rows < 3 or len(present) < rows:
        return None
    if not bool((present == present.round()).all()):
        return None
    low, high = torch.aminmax(present)
    in_turn, by_name = float(high - low) == rows - 1, _ID.fullmatch(column.name)
    # sorted only where it may be one
    if not (in_turn or by_name) or not bool((torch.diff(present.sort().values) > 0).all()):
        return None
    return "numbers the rows" if in_turn else "is an id by its name: each row has its own whole number"


def taken_for_one(column: Column, cells: Any) -> str | None:
    """A whole number of a column that float64 takes for another one of it."""
    present = column.present
    if column.kind != "number" or not len(present) or float(present.abs().max()) < ALL_WHOLE:
        return None
    texts = read(column.name, cells, kind="category").texts
    large = [text for text in texts if abs(float(text)) >= ALL_WHOLE]
    return large[0] if len({*map(float, large)}) < len(large) else None


def compact_date(column: Column) -> str | None:
    """A value such as 20230115, of a column of numbers that are all days so written."""
    present = column.present
    if column.kind != "number" or not len(present) or float(present.min()) < FIRST or float(present.max()) > LAST:
        return None
    months, days = present // 100 % 100, present % 100
    whole = bool((present == present.round()).all())
    fits = whole and bool(((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all())
    return f"{present[0]:.0f}" if fits else None


def leading_zero(column: Column, cells: Any) -> str | None:
    """A text such as 02134, of a column that is taken for numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.kind != "number" or not pa.types.is_string(cells.type):
        return None
    row = pc.index(pc.match_substring_regex(cells, r"^\s*0[0-9]+\s*$"), True).as_py()
    return str(cells[row].as_py()).strip() if row >= 0 else None
