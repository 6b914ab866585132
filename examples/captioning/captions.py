"""Pictures with the sentences that the model says of them."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from places import END, WORDS

from dlrun.observers.view import RunView


class Captions:
    """At the end, `figures/captions.png`: validation pictures and what the model says, orange where it is wrong."""

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            said = model.describe(x["picture"])
        rows = (len(y) + 3) // 4
        figure = Figure(figsize=(10, 2.8 * rows), layout="constrained")
        for n, each in enumerate(figure.subplots(rows, 4, squeeze=False).flat):
            each.set_axis_off()
            if n >= len(y):
                continue
            each.imshow(x["picture"][n, 0].cpu().numpy(), cmap="gray")
            wanted = " ".join(WORDS[number] for number in y[n].tolist() if number > END)
            # a model that has not learned yet says many words
            each.set_title(said[n][:40], fontsize=11, color="#0072B2" if said[n] == wanted else "#D55E00")
        run.save_figure(figure)
