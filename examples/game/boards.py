"""The moves that the network would play, on boards that it has not seen."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from dlrun.observers.view import RunView


class Boards:
    """At the end, `figures/boards.png`: validation boards, the probability of each move, and rings at the best ones."""

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        size = len(run.validation)
        index = torch.linspace(0, size - 1, min(self.samples, size), device=run.device).long()
        x, best = run.validation.gather(index)
        with run.model() as model:
            chances = model(x).softmax(1).view(-1, 3, 3).cpu().numpy()
        rows = (len(x) + 3) // 4
        figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
        for n, each in enumerate(figure.subplots(rows, 4, squeeze=False).flat):
            each.set_axis_off()
            if n >= len(x):
                continue
            each.imshow(chances[n], cmap="Blues", vmin=0, vmax=1)
            for line in (0.5, 1.5):
                each.plot([-0.5, 2.5], [line, line], color="#888888", linewidth=1)
                each.plot([line, line], [-0.5, 2.5], color="#888888", linewidth=1)
            for field in range(9):
                row, column = divmod(field, 3)
                mark = "X" if x[n, 0, row, column] else "O" if x[n, 1, row, column] else ""
                each.text(column, row, mark, ha="center", va="center", fontsize=24)
                if best[n, field]:
                    each.plot(column, row, "o", markersize=26, markerfacecolor="none", markeredgecolor="#D55E00")
        run.save_figure(figure)
