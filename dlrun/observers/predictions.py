"""A table of predictions on fixed validation samples over time."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.analysis.figures.classes import as_probabilities
from dlrun.datasets.tensors.spec import restore
from dlrun.errors import ConfigError
from dlrun.nests.nest import size_of
from dlrun.observers.prediction_figure import Cell, draw_table
from dlrun.observers.view import RunView
from dlrun.storage.files.replacing import write_atomically
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import IGNORE_INDEX

__all__ = ["Predictions"]

COLUMNS = ("step", "epoch", "sample", "input", "target", "prediction", "confidence")
SHOWN = 40
"""Characters of an input's end that are shown of a text."""


class Row(NamedTuple):
    """A prediction; `confidence` is the probability of the predicted class, None without classes."""

    sample: int
    input: str
    target: str
    prediction: str
    confidence: float | None


class Predictions:
    """Writes the predictions on some validation samples after each validation, and draws them at the end.

    `samples` of them are evenly spaced over the split; or give their places. The table is
    `observers/predictions/predictions.csv`, the figure `figures/predictions.png`. Of a text it is the token after
    each window, of pairs of texts the answer to the source; scaled targets are in their own unit.
    """

    def __init__(self, samples: int | Sequence[int] = 16) -> None:
        places = [samples] if isinstance(samples, int) else list(samples)
        if not places or min(places) < (1 if isinstance(samples, int) else 0):
            raise ConfigError(
                f"The observer's samples={samples}: expected their number, or a list of their places from 0 on. Type "
                f"for example samples=16."
            )
        self.samples = samples
        # by step: the rows of a validation
        self.table: dict[int, list[Row]] = {}

    def on_start(self, run: RunView) -> None:
        if run.validation is None:
            raise ConfigError(
                "The observer predictions looks at validation samples, and the data has none: give "
                "dataset.validation_size."
            )
        self.index = self._index(len(run.validation))
        # those of a process before this one; what lies behind the checkpoint comes again
        self.table = _read(run.folder / "predictions.csv", run.step) if run.resumed else {}

    def on_evaluation(self, run: RunView) -> None:
        assert run.validation is not None
        x, y = run.validation.gather(self.index.to(run.device)).to(run.device)
        with run.model() as model:
            outputs: Any = model(x)
            answers = _answers(run, model, x, y)
        if answers is not None:
            self.table[run.step] = [Row(int(place), *rest) for place, rest in zip(self.index, answers, strict=True)]
            self._write(run)
            return
        if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
            raise TypeError(
                f"the model returned {type(outputs).__name__} and targets are {type(y).__name__}: a table needs tensors"
            )
        outputs, y = outputs.float().cpu(), y.cpu()
        if outputs.shape == y.shape:
            # scaled targets in the unit of the data, as metrics have them
            outputs, y = restore(run.spec, outputs), restore(run.spec, y)
        inputs = _inputs(run, x, y)
        if run.spec.task == "language" and outputs.ndim == 3:
            last = _last(y)
            outputs, y = outputs[torch.arange(len(y)), last], y[torch.arange(len(y)), last]
        predictions = _predictions(run, outputs, y)
        self.table[run.step] = [
            Row(int(place), given, *rest) for place, given, rest in zip(self.index, inputs, predictions, strict=True)
        ]
        self._write(run)

    def on_end(self, run: RunView) -> None:
        if not self.table or run.validation is None:
            return
        x, y = run.validation.gather(self.index.to(run.device))
        steps = sorted(self.table)
        rows = [[_cell(self.table[step][i]) for step in steps] for i in range(len(self.index))]
        first = self.table[steps[0]]
        pictures = x.float().cpu() if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] in (1, 3) else None
        masks = y.cpu() if run.spec.task == "dense" and isinstance(y, Tensor) and y.ndim == 3 else None
        labels = [row.target if pictures is not None else f"{row.input}  →  {row.target}" for row in first]
        run.save_figure(draw_table(rows, steps, labels if masks is None else [""] * len(labels), pictures, masks))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the table is in its file."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""

    def _index(self, size: int) -> Tensor:
        if isinstance(self.samples, int):
            return torch.linspace(0, size - 1, min(self.samples, size)).long()
        if max(self.samples) >= size:
            raise ConfigError(
                f"The observer's samples has {max(self.samples)}, and the validation split {size} samples, 0 to "
                f"{size - 1}."
            )
        return torch.tensor(list(self.samples))

    def _write(self, run: RunView) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        per_epoch = run.step / run.epoch if run.epoch else 1.0
        for step, rows in sorted(self.table.items()):
            for row in rows:
                confidence = "" if row.confidence is None else f"{row.confidence:.4g}"
                writer.writerow([step, f"{step / per_epoch:.6g}", *row[:-1], confidence])
        # in one move: a kill leaves the old or the new
        write_atomically(run.folder / "predictions.csv", text.getvalue().encode(errors="replace"))


def _answers(run: RunView, model: Any, x: Any, y: Any) -> list[tuple[str, str, str, None]] | None:
    """Of pairs of texts the source, the target and what the model makes of the source; None of anything else."""
    pair = run.tokenizer
    if not isinstance(pair, PairTokenizer) or not callable(getattr(model, "generate", None)):
        return None
    found = model.generate(x["source"])
    return [
        (pair.decode_source(source), pair.decode(target), pair.decode(answer), None)
        for source, target, answer in zip(x["source"].tolist(), y.tolist(), found.tolist(), strict=True)
    ]


def _predictions(run: RunView, outputs: Tensor, y: Tensor) -> list[tuple[str, str, float | None]]:
    """Target, prediction and confidence of each sample; of a class for each element how many are right."""
    if run.spec.task == "dense" and outputs.numel() > y.numel():
        answers = outputs.argmax(-1 if outputs.shape[:-1] == y.shape else 1)
        return [
            (_classes(run, target[target != IGNORE_INDEX]), _share(answer == target, target != IGNORE_INDEX), None)
            for target, answer in zip(y, answers, strict=True)
        ]
    classes = run.spec.task in ("classification", "language") and outputs.ndim == 2 and y.ndim == 1
    if not classes or y.is_floating_point():
        return [(_numbers(target), _numbers(output), None) for target, output in zip(y, outputs, strict=True)]
    found = as_probabilities(outputs).max(1)
    return [
        (_class(run, int(target)), _class(run, int(best)), float(share))
        for target, best, share in zip(y, found.indices, found.values, strict=True)
    ]


def _classes(run: RunView, numbers: Tensor) -> str:
    return " ".join(_class(run, number) for number in numbers[:8].tolist()) + (" …" if len(numbers) > 8 else "")


def _share(right: Tensor, counts: Tensor) -> str:
    return f"{float(right[counts].float().mean()):.1%} right" if bool(counts.any()) else ""


def _class(run: RunView, number: int) -> str:
    if run.tokenizer is not None:
        return repr(run.tokenizer.decode([number])) if number >= 0 else ""
    names = run.spec.class_names
    return names[number] if 0 <= number < len(names) else str(number)


def _last(y: Tensor) -> Tensor:
    """The last place of each window [N, T] with a target that counts."""
    return (torch.arange(y.shape[1]) * (y != IGNORE_INDEX)).amax(1)


def _inputs(run: RunView, x: Any, y: Tensor) -> list[str]:
    """The inputs in words: the end of a text, a few numbers; of pictures nothing."""
    if not isinstance(x, Tensor):
        return [""] * size_of(x)
    if run.tokenizer is not None:
        windows = zip(x.tolist(), _last(y).tolist(), strict=True)
        return [repr(run.tokenizer.decode(row[: last + 1])[-SHOWN:]) for row, last in windows]
    return [_numbers(row) if row.numel() <= 8 else "" for row in x.cpu()]


def _numbers(values: Tensor) -> str:
    flat = values.reshape(-1).tolist()
    return " ".join(f"{value:.4g}" for value in flat[:8]) + (" …" if len(flat) > 8 else "")


def _cell(row: Row) -> Cell:
    right = None if row.confidence is None else row.prediction == row.target
    return Cell(row.prediction, row.confidence, right)


def _read(file: Path, last: int) -> dict[int, list[Row]]:
    """The rows of the steps up to `last`."""
    table: dict[int, list[Row]] = {}
    if not file.is_file():
        return table
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if (step := int(line["step"])) <= last:
                confidence = float(line["confidence"]) if line["confidence"] else None
                row = Row(int(line["sample"]), line["input"], line["target"], line["prediction"], confidence)
                table.setdefault(step, []).append(row)
    return table
