"""The joints that the heat maps find, on their figures."""

from __future__ import annotations

import torch
from figures import JOINTS, SIDE
from matplotlib.figure import Figure

from dlrun.observers.view import RunView

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")


class Joints:
    """At the end, `figures/joints.png`: validation pictures with the joints found, and as rings the true ones."""

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            found = model(x).flatten(2).argmax(2).cpu()
        rows = (len(x) + 3) // 4
        figure = Figure(figsize=(10, 2.6 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, 4, squeeze=False).flat
        for n, each in enumerate(axes):
            each.set_axis_off()
            if n >= len(x):
                continue
            each.imshow(x[n, 0].cpu().numpy(), cmap="gray_r")
            for joint, (name, colour) in enumerate(zip(JOINTS, COLOURS, strict=True)):
                row, column = y[n, joint].tolist()
                each.plot(column, row, "o", markersize=13, markerfacecolor="none", markeredgecolor=colour)
                place = int(found[n, joint])
                each.plot(place % SIDE, place // SIDE, "o", color=colour, label=name)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(JOINTS))
        run.save_figure(figure)
