"""The pixels' classes beside those that the U-Net finds."""

from __future__ import annotations

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from dlrun.observers.view import RunView

COLOURS = ListedColormap(["#f4f4f4", "#0072B2", "#E69F00"])
"""Of background, disc and square."""


class Masks:
    """At the end, `figures/masks.png`: validation pictures, their classes, those found, and the wrong pixels."""

    def __init__(self, samples: int = 7) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            found = model(x).argmax(1)
        figure = Figure(figsize=(1.3 * len(x), 5.4), layout="constrained")
        axes = figure.subplots(4, len(x), squeeze=False)
        for row, name in enumerate(("picture", "disc, square", "found", "wrong")):
            axes[row, 0].set_ylabel(name)
        for column, (picture, wanted, mask) in enumerate(
            zip(*(each.cpu().numpy() for each in (x[:, 0], y, found)), strict=True)
        ):
            axes[0, column].imshow(picture, cmap="gray")
            axes[1, column].imshow(wanted, cmap=COLOURS, vmin=0, vmax=2)
            axes[2, column].imshow(mask, cmap=COLOURS, vmin=0, vmax=2)
            axes[3, column].imshow(mask != wanted, cmap="gray_r", vmin=0, vmax=1)
        for each in axes.flat:
            each.set(xticks=[], yticks=[])
            each.grid(False)
        run.save_figure(figure)
