"""The targets of a table: classes by name, or the numbers of a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.datasets.columns.choose import check_known
from dlrun.datasets.columns.column import Column, of_rows, read
from dlrun.datasets.columns.doubts import number_written_otherwise
from dlrun.errors import ConfigError, DataError
from dlrun.terminal import output

TabularTask = Literal["classification", "regression"]

MOST_CLASSES = 20
"""Different whole numbers that are classes unless told otherwise."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets `y`: classes int64 [N], or numbers float64 [N, O]."""

    y: Tensor
    task: TabularTask
    class_names: tuple[str, ...]
    described: str
    names: tuple[str, ...] = ()


def read_targets(
    cells: Mapping[str, Any],
    names: Sequence[str],
    task: TabularTask | None,
    declared: Mapping[str, Sequence[str]],
) -> Targets:
    """The targets in the columns `names`.

    Texts are classes; so are up to 20 different whole numbers, unless `task` says otherwise, and a line says so.
    Several columns are a regression. Raises `ConfigError` for columns that do not exist, and `DataError` for targets
    that are missing, all the same or of no such task.
    """
    if not names:
        raise ConfigError(
            f"dataset.target is missing: the column to predict. Type for example dataset.target={[*cells][-1]}. "
            f"The columns are: {', '.join([*cells][:12])}."
        )
    check_known("target", names, [*cells])
    if len({*names}) < len(names):
        raise ConfigError(f"dataset.target names a column twice: {', '.join(names)}.")
    found = [_read(name, cells[name], declared.get(name, ())) for name in names]
    if len(found) > 1:
        if task == "classification":
            raise ConfigError(
                "dataset.target: several columns are a regression. Give one of them for a classification."
            )
        return _regression(found)
    column = found[0]
    if column.kind == "number" and task is None:
        task = _guess(column)
    if task == "regression" or (task is None and column.kind == "number"):
        return _regression(found)
    return _classification(column, cells[column.name], declared.get(column.name, ()), asked=task is not None)


def _read(name: str, cells: Any, declared: Sequence[str]) -> Column:
    column = read(name, cells, declared=declared)
    if column.missing:
        first = int(column.values.isnan().nonzero()[0])
        raise DataError(
            f"The target `{name}` is missing in {of_rows(column.missing, len(column.values))}, the first row "
            f"{first + 1}. A row without a target teaches nothing: leave these out of the file."
        )
    if bool((column.values == column.values[0]).all()):
        raise DataError(f"The target `{name}` has one value in all rows: there is nothing to learn.")
    return column


def _guess(column: Column) -> TabularTask:
    different = torch.unique(column.values)
    whole = bool((different == different.round()).all())
    if not whole or len(different) > min(MOST_CLASSES, len(column.values) // 2):
        return "regression"
    if [*different.tolist()] != [0, 1]:
        output.say(
            f"The target `{column.name}` has {len(different)} different whole numbers, taken as classes. For a "
            "regression type dataset.task=regression."
        )
    return "classification"


def _regression(columns: Sequence[Column]) -> Targets:
    for column in columns:
        if column.kind != "number":
            raise DataError(
                f"The target `{column.name}` is no number ({column.described}); a regression needs numbers"
                f"{'' if len(columns) > 1 else '. Type dataset.task=classification for classes'}."
            )
    names = tuple(column.name for column in columns)
    return Targets(torch.stack([column.values for column in columns], 1), "regression", (), ", ".join(names), names)


def _classification(column: Column, cells: Any, declared: Sequence[str], *, asked: bool) -> Targets:
    if column.kind == "date" or (column.kind == "text" and not asked):
        what = "holds dates" if column.kind == "date" else f"has {len(column.texts):,} different texts"
        raise DataError(
            f"The target `{column.name}` {what} in {len(column.values):,} rows, which is too many for classes. If they "
            "are classes all the same, type dataset.task=classification."
        )
    if not asked and (number := number_written_otherwise(column.texts)):
        raise DataError(
            f"The target `{column.name}` has numbers written as `{number[:30]}`, not as 1234.5. If they are "
            "classes, type dataset.task=classification."
        )
    if column.kind == "number" and not bool((column.values == column.values.round()).all()):
        raise DataError(f"The target `{column.name}` has fractions: they are no classes. Type dataset.task=regression.")
    column = read(column.name, cells, kind="category", declared=declared)
    names = ", ".join(column.texts[:6]) + (" …" if len(column.texts) > 6 else "")
    described = f"{column.name}, {len(column.texts)} classes ({names})"
    return Targets(column.values.long(), "classification", column.texts, described)
