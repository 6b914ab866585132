"""A table of your own: a row a sample, some columns the inputs, others the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.datasets.columns.choose import Choice, check_known, choose
from dlrun.datasets.columns.column import Column, read
from dlrun.datasets.columns.encode import TableEncoding
from dlrun.datasets.columns.targets import Targets, read_targets
from dlrun.datasets.files.tabular import read as files
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import drawn_size
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import ConfigError, DataError
from dlrun.terminal import output
from dlrun.terminal.format import plural
from dlrun.types import Data

__all__ = ["table"]

DRAWN = 0.15
"""Of all samples, for a split that is not given."""


def table(
    *,
    path: str | None = None,
    target: str | list[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    columns: list[str] | None = None,
    leave_out: list[str] | None = None,
    categories: list[str] | None = None,
    dates: list[str] | None = None,
    missing: Literal["refuse", "mean", "indicator"] = "refuse",
    min_count: int = 1,
    header: bool = True,
    split_column: str | None = None,
    group: str | None = None,
    time: str | None = None,
    stratify: bool = False,
    folds: int | None = None,
    fold: int | None = None,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    normalise: bool = True,
    scale_targets: bool = False,
) -> Data:
    """The rows of a CSV, TSV, Parquet or ARFF file, inputs float32 [N, D].

    `target` is a column or several. The inputs are `columns`, or all others but `leave_out`, the group, the time and
    the column of the splits. Numbers are normalised by the training rows, categories become a 0 or 1 for each of their
    training values with at least `min_count` rows, and `dates` days since 1970. `missing` values are refused, get the
    training mean, or with `indicator` a further input too.

    Splits are drawn by `split_seed`, a share of 0.15 each unless a size is given; or they stand in `split_column`, as
    train, validation and test. No `group` is in two splits; by `time` training is before validation, and that before
    the test; with `stratify` each class has its share of every split. With `folds` the part `fold` of what is no test
    is the validation split. Raises `DataError` for what is in the file, `ConfigError` for the arguments.
    """
    if path is None:
        raise ConfigError("dataset=table needs a file. Type for example dataset.path=table.csv dataset.target=COLUMN.")
    found = files.read(where := Path(path).expanduser(), header=header)
    cells, names = found.columns, [*found.columns]
    uses = {"split_column": split_column, "group": group, "time": time}
    for key, name in uses.items():
        check_known(key, [name] if name else [], names)
    wanted = [target] if isinstance(target, str) else target or []
    targets = read_targets(cells, wanted, task, found.declared)
    reserved = {name: key for key, name in uses.items() if name} | dict.fromkeys(wanted, "target")
    reserved |= dict.fromkeys(_indices(found, reserved, columns), "index")
    choice = Choice(columns, leave_out or [], categories or [], dates or [], missing, reserved)
    inputs = choose(cells, choice, found.declared)
    x = torch.stack([column.values for column in inputs], 1)
    rows = _rows_of_splits(cells[split_column], split_column, found.rows) if split_column else {}
    groups, times = _groups(cells, group), _times(cells, time)
    _check_given(rows, groups, times)
    train = rows.get("train", torch.arange(found.rows))
    splitting = Splitting(
        stratify,
        groups=None if groups is None else groups[train],
        times=None if times is None else times[train],
        folds=folds,
        fold=fold,
    )
    options = TensorOptions(
        validation_size=drawn_size(validation_size, DRAWN, own="validation" in rows or folds is not None),
        test_size=drawn_size(test_size, DRAWN, own="test" in rows),
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        splitting=splitting,
        scale_targets=scale_targets,
        encoding=TableEncoding(inputs, missing, normalise, min_count),
    )
    return _build(where, options, x, targets, {"train": train} | rows, inputs)


def _indices(found: files.Table, reserved: Mapping[str, str], columns: Sequence[str] | None) -> list[str]:
    """The columns without a name, which are no inputs unless they are asked for."""
    left = [name for name in found.indices if name not in reserved]
    if left and columns is None:
        output.say(f"Left out as an index: {', '.join(left)}. ('dataset.columns=[…]' chooses the inputs.)")
    return left


def _build(
    where: Path,
    options: TensorOptions,
    x: Tensor,
    targets: Targets,
    rows: Mapping[str, Tensor],
    inputs: Sequence[Column],
) -> Data:
    kinds = [repr((each.name, each.kind, each.texts)) for each in inputs]
    content = fingerprint(x, targets.y, *rows.values(), *kinds)
    data = build(
        "table",
        {split: (x[index], targets.y[index]) for split, index in rows.items()},
        targets.task,
        options,
        class_names=targets.class_names,
        target_names=targets.names,
        columns=[column.name for column in inputs],
        content=content,
    )
    return replace(data, notes=data.notes | {"path": str(where), "columns": _describe(inputs, targets)})


def _describe(inputs: Sequence[Column], targets: Targets) -> str:
    """The columns by their kinds, for the head of a run."""
    words = []
    for kind, word in (("number", "numbers"), ("category", "categories"), ("date", "dates")):
        names = [c.name + (f" ({len(c.texts)})" if c.texts else "") for c in inputs if c.kind == kind]
        if names:
            words.append(f"{word} {', '.join(names[:8])}{f' … ({len(names)})' if len(names) > 8 else ''}")
    if gaps := [f"{column.name} ({column.missing:,})" for column in inputs if column.missing]:
        words.append(f"missing in {', '.join(gaps[:8])}{f' … ({len(gaps)})' if len(gaps) > 8 else ''}")
    return "; ".join([*words, f"{plural('target', len(targets.names))} {targets.described}"])


def _rows_of_splits(cells: Any, name: str, count: int) -> dict[str, Tensor]:
    """The rows of each split, by the column that names it."""
    column = read(name, cells, kind="category")
    named = {place: SPELLINGS.get(text.lower()) for place, text in enumerate(column.texts)}
    if unknown := [column.texts[place] for place, split in named.items() if split is None]:
        raise DataError(
            f"dataset.split_column: `{name}` has the value `{unknown[0]}`; expected train, validation (valid, "
            "val, dev) or test."
        )
    if column.missing:
        raise DataError(f"dataset.split_column: `{name}` is missing in {column.missing:,} of {count:,} rows.")
    found = {}
    for split in ("train", "validation", "test"):
        places = torch.tensor([place for place, other in named.items() if other == split], dtype=torch.float64)
        if len(index := torch.isin(column.values, places).nonzero().flatten()):
            found[split] = index
    if "train" not in found:
        raise DataError(f"dataset.split_column: no row of `{name}` is of the split train.")
    return found


def _groups(cells: Mapping[str, Any], name: str | None) -> Tensor | None:
    if name is None:
        return None
    column = read(name, cells[name], kind="category")
    if column.missing:
        raise DataError(f"dataset.group: `{name}` is missing in {column.missing:,} of {len(column.values):,} rows.")
    return column.values.long()


def _times(cells: Mapping[str, Any], name: str | None) -> Tensor | None:
    if name is None:
        return None
    column = read(name, cells[name])
    if column.kind not in ("number", "date"):
        # as dates, for its message on how to write them
        column = read(name, cells[name], kind="date")
    if column.missing:
        raise DataError(f"dataset.time: `{name}` is missing in {column.missing:,} of {len(column.values):,} rows.")
    return column.values


def _check_given(rows: Mapping[str, Tensor], groups: Tensor | None, times: Tensor | None) -> None:
    """Raise `DataError` if the splits of a column share groups, or are not one after another in time."""
    splits = [*rows]
    for one, other in pairwise(splits):
        if times is not None and float(times[rows[one]].max()) >= float(times[rows[other]].min()):
            raise DataError(f"dataset.time: by dataset.split_column rows of {one} are not all before those of {other}.")
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            if groups is not None and (
                n := int(torch.isin(torch.unique(groups[rows[one]]), groups[rows[other]]).sum())
            ):
                raise DataError(f"dataset.group: by dataset.split_column {n} groups are in {one} and in {other}.")
