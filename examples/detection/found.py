"""The boxes that the detector finds, on their canvases."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dlrun.observers.view import RunView
from dlrun.types import IGNORE_INDEX


class Found:
    """At the end, `figures/found.png`: validation canvases with the boxes found, and dashed the true ones."""

    def __init__(self, samples: int = 8, least: float = 0.5) -> None:
        self.samples, self.least = samples, least

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            found = model(x)
        chance, label = (found["object"].sigmoid()[..., None] * found["classes"].softmax(2)).max(2)
        rows = (len(x) + 3) // 4
        figure = Figure(figsize=(10, 2.7 * rows), layout="constrained")
        for n, each in enumerate(figure.subplots(rows, 4, squeeze=False).flat):
            each.set_axis_off()
            if n >= len(x):
                continue
            each.imshow(x[n, 0].cpu().numpy(), cmap="gray")
            for box in y["boxes"][n][y["labels"][n] != IGNORE_INDEX].tolist():
                each.add_patch(_rectangle(box, "white", linestyle="--"))
            for cell in (chance[n] >= self.least).nonzero().flatten().tolist():
                box = found["boxes"][n, cell].tolist()
                each.add_patch(_rectangle(box, "#E69F00"))
                text = f"{int(label[n, cell])}  {chance[n, cell]:.0%}"
                each.text(box[1] - 0.5, box[0] - 1.2, text, color="#E69F00", fontsize=10)
        run.save_figure(figure)


def _rectangle(box: list[float], colour: str, **style: str) -> Rectangle:
    # the middle of a pixel is at its whole number
    top, left, bottom, right = (each - 0.5 for each in box)
    return Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.6, **style)
