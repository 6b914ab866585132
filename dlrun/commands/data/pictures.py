"""A figure of a data set: a contact sheet of pictures, or histograms of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.contact_sheet import contact_sheet
from dlrun.analysis.figures.histograms import frequencies, histograms
from dlrun.commands.data.columns import day
from dlrun.commands.data.lines import Seen, column_names
from dlrun.datasets.tensors.spec import target_names
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.randomness import AUGMENTATION, generator
from dlrun.types import Data, Samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES, EACH = 10, 8
"""Rows of a contact sheet, and pictures in each."""

COLUMNS = 24
"""Panels of histograms."""

COMPARED = 5
"""Classes whose histograms lie in one panel."""


def draw(data: Data, seen: Mapping[str, Seen]) -> Figure | None:
    """Draw samples of the training split, or None for those that are neither pictures nor numbers."""
    if data.spec.task == "language":
        tokens = getattr(data.train, "tokens", None)
        if not isinstance(tokens, Tensor):
            return None
        counts = torch.bincount(tokens.long(), minlength=data.spec.vocabulary or 0)
        return frequencies(counts, f"{data.name}: tokens of the training split")
    x, y = seen["training"].x, seen["training"].y
    if x is None:
        return None
    if data.tokenizer:
        counts = torch.bincount(x.flatten(), minlength=data.spec.vocabulary or 0)
        # 0 is the padding
        return frequencies(counts[1:], f"{data.name}: tokens of the training split")
    if _are_pictures(tuple(x.shape[1:])):
        return _sheet(data, x, y)
    return _histograms(data, x, y)


def _are_pictures(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


def _sheet(data: Data, x: Tensor, y: Tensor | None) -> Figure:
    low, high = _ends(data, x)

    def scaled(some: Tensor) -> Tensor:
        return (some.float() - low) / (high - low)

    spec = data.spec
    rows: dict[str, Tensor] = {}
    if spec.classes and y is not None and y.ndim == 1:
        names = spec.class_names or tuple(map(str, range(spec.classes)))
        # evenly spaced, if there are many
        shown = torch.linspace(0, spec.classes - 1, min(CLASSES, spec.classes)).round().long().tolist()
        for place in shown:
            own = x[y == place][:EACH]
            if len(own):
                rows[names[place]] = scaled(own)
    else:
        few = x[: CLASSES * EACH // 2]
        rows = {f"{i * EACH}": scaled(some) for i, some in enumerate(torch.split(few, EACH))}
    if data.augment is not None:
        rows["varied"] = scaled(_vary(data, len(next(iter(rows.values())))))
    return contact_sheet(rows, f"{data.name}: samples of the training split")


def _ends(data: Data, x: Tensor) -> tuple[float, float]:
    """The values of black and white."""
    if data.inputs and data.inputs.pixels:
        return data.inputs.pixels
    low, high = (float(end) for end in torch.aminmax(x[x.isfinite()]))
    return (low, high) if high > low else (low, low + 1)


def _vary(data: Data, count: int) -> Tensor:
    """The first training samples as the augmentation of a first epoch makes them."""
    index = torch.arange(min(count, len(data.train)))
    x, _ = data.train.gather(index)
    assert data.augment is not None
    draw = generator(0, AUGMENTATION)
    try:
        varied = data.augment(x, draw, Samples(index, 0, 0))  # type: ignore[call-arg]
    except TypeError:  # it takes no samples
        varied = data.augment(x, draw)  # type: ignore[call-arg]
    return data.prepare.undo(varied) if isinstance(data.prepare, Standardise) else varied


def _histograms(data: Data, x: Tensor, y: Tensor | None) -> Figure:
    spec, flat = data.spec, x.reshape(len(x), -1)
    names = column_names(data, flat)
    parts = {"": torch.ones(len(flat), dtype=torch.bool)}
    if spec.classes and spec.classes <= COMPARED and y is not None and y.ndim == 1:
        labels = spec.class_names or tuple(map(str, range(spec.classes)))
        parts = {label: y == place for place, label in enumerate(labels)}
    columns = {}
    if flat.shape[1] > COLUMNS and x.ndim > 2:
        columns["all inputs"] = [(name, flat[rows].flatten()) for name, rows in parts.items()]
    else:
        for place, name in list(enumerate(names))[:COLUMNS]:
            columns[name] = [(label, flat[rows, place]) for label, rows in parts.items()]
    if spec.task == "regression" and y is not None:
        targets, names_of_targets = y.reshape(len(y), -1), target_names(spec)
        for place in range(min(targets.shape[1], COLUMNS)):
            columns[f"target {names_of_targets[place]}"] = [("", targets[:, place])]
    more = (
        f" (the first {COLUMNS} of {flat.shape[1]} columns)"
        if len(names) > COLUMNS and "all inputs" not in columns
        else ""
    )
    known = data.inputs.texts if data.inputs and data.inputs.kinds else ()
    kinds = zip(names, data.inputs.kinds if data.inputs else (), strict=False)
    return histograms(
        columns,
        f"{data.name}: the training split{more}",
        texts=dict(zip(names, known, strict=False)),
        formats={name: day for name, kind in kinds if kind == "date"},
    )
