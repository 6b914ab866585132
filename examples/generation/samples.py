"""Digits that the auto-encoder makes, and makes again."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlrun.observers.view import RunView


class Samples:
    """At the end, `figures/samples.png`: validation digits, the same from their codes, and those of random codes."""

    def __init__(self, samples: int = 12) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, _ = run.validation.gather(index)
        with run.model() as model:
            mean, _ = model.encode(x).chunk(2, dim=1)
            again = model.decode(mean).sigmoid().view_as(x)
            drawn = model.sample(4 * self.samples, torch.Generator().manual_seed(0))
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        given, made = figure.subfigures(2, 1, height_ratios=[2, 4])
        given.suptitle("of the validation split, and below from their codes", fontsize=12)
        made.suptitle("from random codes", fontsize=12)
        _draw(given, torch.cat([x, again]), len(x))
        _draw(made, drawn, self.samples)
        run.save_figure(figure)


def _draw(figure: Figure, pictures: Tensor, columns: int) -> None:
    axes = figure.subplots(len(pictures) // columns, columns, squeeze=False)
    for each, picture in zip(axes.flat, pictures.cpu().numpy(), strict=True):
        each.imshow(picture[0], cmap="gray_r", vmin=0, vmax=1)
        each.set_axis_off()
