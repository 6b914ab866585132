"""Which pictures a run gets, from its journal, its data, its model and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlrun.analysis.figures.classes import confusion, worst_mistakes
from dlrun.analysis.figures.curves import learning_curves, schedule, varies
from dlrun.analysis.figures.functions import fit_1d, plane
from dlrun.analysis.figures.style import save
from dlrun.analysis.figures.text import loss_by_position
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.engine.evaluation import Collected, evaluating, portion
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.storage.journal import curves
from dlrun.storage.rundir import RunDir
from dlrun.types import Batch, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 2000
"""At most so many points of a training split are drawn."""

TOKENS = 1 << 16
"""At most so many tokens of a text are predicted for a picture."""


def draw(
    run: RunDir, *, data: Data, model: nn.Module, collected: Collected | None = None, best_step: int | None = None
) -> list[Path]:
    """Draw the figures that suit the run into its folder, and return their files.

    Always the learning curves, if something was logged twice; for classification the confusion
    matrix and the worst mistakes among what was `collected`; for data on a line or in the plane the
    function that was learned; for a text the validation loss by the position in the window.
    """
    fig = [*_curves(run, best_step), *_answers(data, collected), *_function(data, model), *_text(data, model)]
    return [save(picture, run.figures / f"{name}.png") for name, picture in fig]


def _curves(run: RunDir, best_step: int | None) -> Iterator[tuple[str, Figure]]:
    logged = curves(run.journal)
    if any(len(logged.get(f"{split}/loss", ())) > 1 for split in ("train", "val")):
        yield "learning_curves", learning_curves(logged, best_step=best_step)
    if varies(logged.get("lr", ())):
        yield "schedule", schedule(logged["lr"])


def _answers(data: Data, seen: Collected | None) -> Iterator[tuple[str, Figure]]:
    if data.spec.task != "classification" or seen is None or seen.output.ndim != 2 or seen.output.shape[1] < 2:
        return
    names = data.spec.class_names
    yield "confusion", confusion(seen.y, seen.output.argmax(1), names)
    mistakes = worst_mistakes(seen.x, seen.y, seen.output.softmax(1), names)
    if mistakes:
        yield "mistakes", mistakes


def _function(data: Data, model: nn.Module) -> Iterator[tuple[str, Figure]]:
    """Draw a function of one variable, or the classes of the plane."""
    kind = (data.spec.task, tuple(data.spec.input_shape))
    if kind not in (("regression", (1,)), ("classification", (2,))):
        return
    device = _device(model)

    def answer(x: Tensor) -> Tensor:
        with evaluating(model):
            output: Tensor = model(x.to(device)).float().cpu()
        return output

    x, y = (t.cpu() for t in data.train.gather(torch.arange(min(len(data.train), SHOWN), device=device)))
    if data.spec.task == "classification":
        yield "plane", plane(x, y, lambda points: answer(points.to(x)).softmax(1), data.spec.class_names)
    elif data.spec.outputs == 1:
        grid = torch.linspace(float(x.min()), float(x.max()), 500).to(x)[:, None]
        truth = data.truth(grid).reshape(-1).float() if data.truth else None
        yield "fit", fit_1d(x[:, 0], y.reshape(-1), grid[:, 0], answer(grid)[:, 0], truth)


def _text(data: Data, model: nn.Module) -> Iterator[tuple[str, Figure]]:
    """Draw the loss of whole windows, evenly spaced over the validation split, by the position in them."""
    split, context = data.validation, data.spec.input_shape[0]
    if data.spec.task != "language" or not isinstance(split, Windows | Streams) or split.predicted < context:
        return
    last = split.predicted - context
    n = min(last + 1, max(2, TOKENS // context))
    starts = torch.linspace(0, last, n, dtype=torch.float64).long().to(split.device)
    losses = []
    for some in torch.split(starts, portion(SHOWN, data.spec)):
        batch = Batch(*(t.to(_device(model)) for t in split.at(some)))
        with evaluating(model):
            losses.append(cross_entropy(model, batch).float().cpu())
    yield "loss_by_position", loss_by_position(torch.cat(losses), data.spec.outputs)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
