"""A column of a table: its kind, and its values as numbers.

Columns come as arrays of pyarrow, texts or typed values, whatever the file was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.errors import DataError
from dlrun.terminal.format import counted

Kind = Literal["number", "category", "date", "text"]

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
    *("NA", "NULL", "NaN", "None", "n/a", "nan", "null", "?"),
)
"""Texts of missing values: those of pandas, and the question mark of UCI's tables."""

MOST_CATEGORIES = 100
"""Different texts of a column that are categories unless told otherwise: each becomes an input."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
_COMPACT = r"^[0-9]{8}$"  # 20260115
# read by nobody: 03/04/2026 is another day in another country
_OTHER_DATE = r"^[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}( [0-9:.]+)?$"
_LARGEST = torch.finfo(torch.float32).max
_DAY = 86400.0


@dataclass(frozen=True, eq=False)
class Column:
    """A column's values, float64 [N], NaN where they are missing.

    Numbers are themselves and dates are days since 1970. Of a category and a text the values are places in `texts`,
    which are sorted.
    """

    name: str
    kind: Kind
    values: Tensor
    texts: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """The number of missing values."""
        return int(self.values.isnan().sum())

    @property
    def present(self) -> Tensor:
        """The values that are there."""
        return self.values[~self.values.isnan()]

    @property
    def described(self) -> str:
        """The kind in words, such as `category of 3`."""
        return f"category of {len(self.texts)}" if self.kind == "category" else self.kind


def is_number(text: str) -> bool:
    """Whether a text is a decimal number."""
    return re.match(_NUMBER, text) is not None


def read(name: str, cells: Any, *, kind: Kind | None = None, declared: Sequence[str] = ()) -> Column:
    """A column, as a `kind` if it is given, else as its values are.

    `declared` are a category's texts in an order of their own. Raises `DataError` that names a row whose value is none
    of that kind, and for values that are no single numbers or texts.
    """
    import pyarrow as pa

    cells = _plain(name, cells)
    texts = pa.types.is_string(cells.type)
    if kind == "category" or declared:
        return _categories(name, cells if texts and declared else _canonical(cells), declared)
    if kind == "date" or (kind is None and pa.types.is_temporal(cells.type)):
        return Column(name, "date", _days(name, cells))
    if kind == "number" or not texts:
        return Column(name, "number", _numbers(name, cells))
    if _all_match(cells, _NUMBER):
        return Column(name, "number", _numbers(name, cells))
    if _all_match(cells, _ISO):
        return Column(name, "date", _days(name, cells))
    found = _categories(name, cells)
    if _all_match(cells, _OTHER_DATE):
        return Column(name, "date", found.values, found.texts)
    few = len(found.texts) <= min(MOST_CATEGORIES, max(2, len(found.present) // 2))
    return found if few else Column(name, "text", found.values, found.texts)


def codes(name: str, cells: Any, texts: Sequence[str]) -> Tensor:
    """The places of a category's values in known `texts`, float64 [N]: -1 for others, NaN for missing ones."""
    column = _categories(name, _canonical(_plain(name, cells)))
    place = _places(texts)
    places = [place.get(text, place.get(_one_writing(text), -1)) for text in column.texts]
    known = torch.tensor([*places, -1], dtype=torch.float64)
    found = known[column.values.nan_to_num(-1).long()]
    return torch.where(column.values.isnan(), torch.nan, found)


def _plain(name: str, cells: Any) -> Any:
    """Texts without blanks around them, null where missing; or numbers, dates and times as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    kind = cells.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind) or _is_text(kind):
        cells = cells.cast(pa.string())
    elif pa.types.is_integer(kind):
        return cells  # float64 would make one of two that are above 2⁵³
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        cells = cells.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(cells), pa.scalar(None, pa.float64()), cells)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return cells
    if not pa.types.is_string(cells.type):
        raise DataError(f"The column `{name}` has values of the type {kind}; expected numbers, texts or dates.")
    cells = pc.utf8_trim_whitespace(cells)
    gap = pc.fill_null(pc.is_in(cells, value_set=pa.array(MISSING)), True)
    return pc.if_else(gap, pa.scalar(None, pa.string()), cells)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _canonical(cells: Any) -> Any:
    """Texts; numbers are written alike, so that 1, 01 and 1.0 are one category."""
    import pyarrow as pa

    if pa.types.is_string(cells.type) and not _all_match(cells, _NUMBER):
        return cells
    if pa.types.is_temporal(cells.type):
        return cells.cast(pa.string())
    coded = cells.dictionary_encode()
    texts = one_writing([str(value) for value in coded.dictionary.to_pylist()])
    return pa.array(texts, pa.string()).take(coded.indices)


def one_writing(texts: list[str]) -> list[str]:
    """Numbers written alike; codes of one length are names, as 02134, and kept.

    >>> one_writing(["01", "2", "1.0"]), one_writing(["02134", "90210"])
    (['1', '2', '1'], ['02134', '90210'])
    """
    if len({*map(len, texts)}) > 1 or not all(text.isdigit() for text in texts):
        return [_one_writing(text) for text in texts]
    return texts


def _one_writing(text: str) -> str:
    """A number as all of its writings are kept; any other text, but for the case of truth values, as it is.

    >>> [_one_writing(text) for text in ("01", "1.0", "1.50", "9007199254740993", "True", "a")]
    ['1', '1', '1.5', '9007199254740993', 'true', 'a']
    """
    if not is_number(text):
        return text.lower() if text.lower() in ("true", "false") else text
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return str(int(text))  # exact: float64 has not all whole numbers above 2⁵³
    value = float(text)
    return text if math.isinf(value) else str(int(value)) if value == int(value) else str(value)


def _all_match(cells: Any, pattern: str) -> bool:
    """Whether all values that are there match, and there are some."""
    import pyarrow.compute as pc

    found = pc.all(pc.match_substring_regex(cells, pattern)).as_py()
    return bool(found) and cells.null_count < len(cells)


def _numbers(name: str, cells: Any) -> Tensor:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(cells.type):
        wrong = pc.fill_null(pc.invert(pc.match_substring_regex(cells, _NUMBER)), False)
        if pc.any(wrong).as_py():
            row = wrong.index(True).as_py()
            text = str(cells[row].as_py())
            hint = " (write 0.5, not 0,5)" if re.match(_NUMBER, text.replace(",", ".", 1)) else ""
            raise DataError(
                f"The column `{name}` has `{text[:40]}` in row {row + 1}; expected a number{hint}. Texts can be "
                f"categories: type {option('categories', [name])}."
            )
    elif not (pa.types.is_floating(cells.type) or pa.types.is_integer(cells.type)):
        raise DataError(f"The column `{name}` has values of the type {cells.type}; expected numbers.")
    values = _tensor(cells.cast(pa.float64(), safe=False))
    # float32 is what a model takes
    if len(far := ((values.abs() > _LARGEST) & ~values.isnan()).nonzero()):
        row = int(far[0])
        raise DataError(f"The column `{name}` has {float(values[row]):g} in row {row + 1}, which float32 lacks.")
    return values


def _days(name: str, cells: Any) -> Tensor:
    """Days since 1970; a time without a zone is taken as UTC."""
    import pyarrow as pa

    if pa.types.is_date(cells.type) or pa.types.is_timestamp(cells.type):
        microseconds = cells.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return _tensor(microseconds.cast(pa.float64(), safe=False)) / (1e6 * _DAY)
    if pa.types.is_integer(cells.type):
        cells = cells.cast(pa.string())
    compact = pa.types.is_string(cells.type) and _all_match(cells, _COMPACT)
    if not pa.types.is_string(cells.type) or not (compact or _all_match(cells, _ISO) or cells.null_count == len(cells)):
        raise DataError(
            f"The column `{name}` has values that are no dates of the form 2026-11-29, 20261129 or 2026-11-29 18:35; "
            "write them so, for a day and a month can be taken for each other."
        )
    coded = cells.dictionary_encode()
    days = [_day(name, text) for text in coded.dictionary.to_pylist()] + [torch.nan]
    return torch.tensor(days, dtype=torch.float64)[_tensor(coded.indices.cast(pa.float64())).nan_to_num(-1).long()]


def _day(name: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}" if text.isdigit() else text)
    except ValueError as error:
        raise DataError(f"The column `{name}` has `{text}`: {error}.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / _DAY


def _categories(name: str, cells: Any, declared: Sequence[str] = ()) -> Column:
    import pyarrow as pa

    coded = cells.dictionary_encode()
    found = coded.dictionary.to_pylist()
    texts = tuple(declared) or tuple(sorted(found, key=_by_number))
    place = _places(texts) if declared else {text: i for i, text in enumerate(texts)}
    numbers = [place.get(text, place.get(_one_writing(text), -1)) for text in found]
    if -1 in numbers:
        other = found[numbers.index(-1)]
        raise DataError(f"The column `{name}` has the value `{other}`, which its declaration lacks.")
    places = torch.tensor([*map(float, numbers), torch.nan], dtype=torch.float64)
    return Column(name, "category", places[_tensor(coded.indices.cast(pa.float64())).nan_to_num(-1).long()], texts)


def _places(texts: Sequence[str]) -> dict[str, int]:
    """The places of known texts, by their own writing and by that of `_one_writing`: 1.0 is 1, TRUE is True."""
    return {_one_writing(text): i for i, text in enumerate(texts)} | {text: i for i, text in enumerate(texts)}


def _by_number(text: str) -> tuple[bool, float, str]:
    # 2 before 10
    number = is_number(text)
    return not number, float(text) if number else 0.0, text


def _tensor(cells: Any) -> Tensor:
    import numpy

    values = cells.to_numpy(zero_copy_only=False)
    return torch.from_numpy(numpy.array(values, dtype=numpy.float64))


def option(key: str, names: Sequence[str]) -> str:
    """A list of columns as one types it.

    >>> option("leave_out", ["Id", "a b"])
    '\\'dataset.leave_out=[Id,"a b"]\\''
    """
    listed = ",".join(name if re.fullmatch(r"[A-Za-z_]\w*", name) else f'"{name}"' for name in names)
    return f"'dataset.{key}=[{listed}]'"


def of_rows(count: int, total: int) -> str:
    """A share of rows in words."""
    return f"{count:,} of {counted(total, 'row', ',')}"
