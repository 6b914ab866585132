"""The figures of one run, saved into its folder. `dlrun.analysis.figures` draws them from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dlrun.analysis.figures.classes import as_probabilities, confusion, worst_mistakes
from dlrun.analysis.figures.curves import learning_curves, schedule, varies
from dlrun.analysis.figures.densities import densities, gallery
from dlrun.analysis.figures.embedding import embedding
from dlrun.analysis.figures.functions import fit_1d, plane, predicted
from dlrun.analysis.figures.style import save
from dlrun.analysis.figures.text import loss_by_position
from dlrun.datasets.columns.encode import EncodeColumns
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.datasets.tensors.spec import restore, target_names
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.engine.evaluation import Collected, batch_size_for, evaluating
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.randomness import SAMPLING, generator
from dlrun.storage.journal import curves
from dlrun.storage.rundir import RunDir
from dlrun.types import Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 2000  # of a training split; more hide each other
PICTURES, FEWER = 64, 16  # that a density of pixels draws; fewer of large ones, since each pixel takes a pass
LARGE = 256  # pixels
MAX_TOKENS = 1 << 16  # of a text, predicted for the loss by position


def draw(
    run: RunDir,
    *,
    data: Data,
    model: nn.Module,
    collected: Collected | None = None,
    monitor: str | None = None,
    best_step: int | None = None,
) -> list[Path]:
    """Draw the figures of a run into its folder; returns their files.

    Learning curves if a loss was logged twice, with the metric `monitor`, and the schedule if the rate varies.
    Classification: confusion matrix and worst mistakes of the outputs `collected`. Data on a line or in the plane: the
    learned function. Other regressions: the values `collected` beside the true ones. Text: the validation loss by
    position in the window. A density of the plane: it, over the points; of pixels: pictures that it draws. An
    embedding: the validation samples and those `collected`, in the plane.
    """
    drawings = [
        *_curves(run, monitor, best_step),
        *_mistakes(data, collected),
        *_predicted(data, collected),
        *_function(data, model),
        *_text(data, model),
    ]
    drawings += [*_density(data, model), *_embedding(data, model, collected)]
    return [save(picture, run.figures / f"{name}.png") for name, picture in drawings]


def _curves(run: RunDir, monitor: str | None, best_step: int | None) -> Iterator[tuple[str, Figure]]:
    logged = curves(run.journal)
    if any(len(logged.get(f"{split}/loss", ())) > 1 for split in ("train", "val")):
        yield "learning_curves", learning_curves(logged, monitor=monitor, best_step=best_step)
    if varies(logged.get("lr", ())):
        yield "schedule", schedule(logged["lr"])


def _mistakes(data: Data, collected: Collected | None) -> Iterator[tuple[str, Figure]]:
    if (
        data.spec.task != "classification"
        or collected is None
        or collected.output.ndim != 2
        or collected.output.shape[1] < 2
    ):
        return
    names = data.spec.class_names
    yield "confusion", confusion(collected.y, collected.output.argmax(1), names)
    mistakes = worst_mistakes(collected.x, collected.y, as_probabilities(collected.output), names)
    if mistakes:
        yield "mistakes", mistakes


def _predicted(data: Data, collected: Collected | None) -> Iterator[tuple[str, Figure]]:
    # of one input the function itself is drawn
    if data.spec.task != "regression" or collected is None or data.spec.input_shape == (1,):
        return
    if collected.output.shape == collected.y.shape == (len(collected.y), data.spec.outputs):
        true, found = (restore(data.spec, values) for values in (collected.y, collected.output))
        yield "predicted", predicted(true, found, target_names(data.spec))


def _function(data: Data, model: nn.Module) -> Iterator[tuple[str, Figure]]:
    kind = (data.spec.task, data.spec.input_shape)
    if kind not in (("regression", (1,)), ("classification", (2,))):
        return
    device = _device(model)

    def answer(x: Tensor) -> Tensor:
        with evaluating(model):
            output: Tensor = model(x.to(device)).float().cpu()
        return output

    x, y = (t.cpu() for t in data.train.gather(torch.arange(min(len(data.train), MAX_POINTS), device=device)))
    with evaluating(model):
        one: Any = model(x[:1].to(device))
    if not isinstance(one, Tensor) or one.shape != (1, data.spec.outputs):
        return  # beside a loss of the user's own the outputs may be anything
    if data.spec.task == "classification":
        yield "plane", plane(x, y, lambda points: as_probabilities(answer(points.to(x))), data.spec.class_names)
    elif data.spec.outputs == 1:
        grid = torch.linspace(float(x.min()), float(x.max()), 500).to(x)[:, None]
        truth = data.truth(grid).reshape(-1).float() if data.truth else None
        yield "fit", fit_1d(x[:, 0], y.reshape(-1), grid[:, 0], answer(grid)[:, 0], truth)


def _density(data: Data, model: nn.Module) -> Iterator[tuple[str, Figure]]:
    if data.spec.task != "density" or not callable(getattr(model, "log_prob", None)):
        return
    device = _device(model)
    if data.spec.input_shape == (2,):
        x = data.train.gather(torch.arange(min(len(data.train), MAX_POINTS), device=device)).x.cpu()

        def log_prob(points: Tensor) -> Tensor:
            with evaluating(model):
                found: Tensor = model.log_prob(points.to(x).to(device)).cpu()  # type: ignore[operator]
            return found

        scale = data.prepare
        scaled = isinstance(scale, Standardise | EncodeColumns) and {*scale.mean, *scale.deviation} != {0.0, 1.0}
        name = "density of the normalised inputs" if scaled else "density"
        yield "density", densities(x, {name: log_prob})
    elif data.spec.levels and callable(getattr(model, "sample", None)):
        with evaluating(model):
            n = PICTURES if math.prod(data.spec.input_shape[-2:]) <= LARGE else FEWER
            drawn: Tensor = model.sample(n, generator(0, SAMPLING)).cpu()  # type: ignore[operator]
        shown = drawn[:, 0] if drawn.shape[1] == 1 else drawn.movedim(1, -1)
        yield "samples", gallery(shown.float())


def _text(data: Data, model: nn.Module) -> Iterator[tuple[str, Figure]]:
    split = data.validation
    if data.spec.task != "language" or not isinstance(split, Windows | Streams):
        return
    if split.predicted < (context := data.spec.input_shape[0]):
        return
    # whole windows, evenly spaced over the split
    last = split.predicted - context
    n = min(last + 1, max(2, MAX_TOKENS // context))
    starts = torch.linspace(0, last, n, dtype=torch.float64).long().to(split.device)
    losses = []
    for some in torch.split(starts, batch_size_for(MAX_POINTS, data.spec)):
        batch = split.at(some).to(_device(model))
        with evaluating(model):
            losses.append(cast("Tensor", cross_entropy(model, batch)).float().cpu())
    yield "loss_by_position", loss_by_position(torch.cat(losses), data.spec.outputs)


def _embedding(data: Data, model: nn.Module, collected: Collected | None) -> Iterator[tuple[str, Figure]]:
    if data.spec.task != "embedding":
        return
    # with a validation split the trained classes too, if others are held out for the test
    split = data.validation or data.train
    x, y = split.gather(torch.linspace(0, len(split) - 1, min(len(split), MAX_POINTS), device=_device(model)).long())
    with evaluating(model):
        outputs: Any = model(x.to(_device(model)))
    parts, source = [(outputs.float().cpu(), y.cpu())], "of validation" if data.validation else "of training"
    if collected is not None:
        source += " and test"
        parts.append((collected.output[:MAX_POINTS], collected.y[:MAX_POINTS]))
    points, classes = (torch.cat(each) for each in zip(*parts, strict=True))
    if points.ndim == 2 and points.shape[1] > 1:
        held_out = data.notes.get("held_out_classes", ())
        yield "embedding", embedding(points, classes, data.spec.class_names, held_out, source)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
