"""New rows in a file, as the raw inputs of a run that learned from a table."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.columns import column
from dlrun.datasets.columns.column import of_rows
from dlrun.datasets.files.tabular.read import read
from dlrun.errors import DataError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.format import counted, ends
from dlrun.types import RawInputs


def read_rows(path: Path, inputs: RawInputs) -> Tensor:
    """The raw inputs of each row, float64 [N, C]: places of a category's texts, NaN where a value is missing.

    Columns are found by their names. Said are columns that are left out, numbers outside of the training rows' range,
    and categories that the run's table lacks. Raises `DataError` for a column that is missing or of another kind, and
    for missing values that the run was told to refuse.
    """
    # as dataset.header=false calls them
    numbered = all(re.fullmatch(r"column_\d+", name) for name in inputs.columns)
    table = read(path, header=not numbered, key="predict")
    names = [*table.columns]
    for name in inputs.columns:
        if name not in table.columns:
            raise DataError(
                f"{path} has no column `{name}`.{did_you_mean(name, names)} The run's inputs are "
                f"{', '.join(inputs.columns)}."
            )
    if extra := [name for name in names if name not in inputs.columns]:
        output.warn(
            f"{path}: {counted(len(extra), 'column')} left out: {', '.join(extra[:8])}{' …' if len(extra) > 8 else ''}."
        )
    found = []
    for place, name in enumerate(inputs.columns):
        values = _values(name, table.columns[name], inputs, place)
        _report(path, name, values, inputs, place)
        found.append(values)
    return torch.stack(found, 1)


def _values(name: str, cells: object, inputs: RawInputs, place: int) -> Tensor:
    kind = inputs.kinds[place]
    if kind == "category":
        return column.codes(name, cells, inputs.texts[place])
    return column.read(name, cells, kind="date" if kind == "date" else "number").values


def _report(path: Path, name: str, values: Tensor, inputs: RawInputs, place: int) -> None:
    gaps, rows = int(values.isnan().sum()), len(values)
    if gaps and inputs.missing == "refuse":
        raise DataError(
            f"{path}: `{name}` is missing in {of_rows(gaps, rows)}, and the run was trained to refuse that. Fill them, "
            "leave these rows out, or train with dataset.missing=mean."
        )
    if inputs.kinds[place] == "category":
        if unknown := int((values == -1).sum()):
            output.warn(
                f"{path}: `{name}` has a value that the run's table lacks in {of_rows(unknown, rows)}: they have the "
                "code of unknown ones."
            )
        return
    low, high = inputs.low[place], inputs.high[place]
    if outside := int(((values < low) | (values > high)).sum()):
        output.warn(
            f"{path}: `{name}` is outside of the training rows' range, {ends(low, high)}, in {of_rows(outside, rows)}."
        )
