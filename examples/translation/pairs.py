"""Sentences with their translations, as a table."""

from __future__ import annotations

import torch
from english_french import END, SOURCE, TARGET
from matplotlib.figure import Figure

from dlrun.observers.view import RunView


class Pairs:
    """At the end, `figures/pairs.png`: English numbers of the validation split, and the French of the model."""

    def __init__(self, samples: int = 10) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            found = model.translate(x["source"])
        figure = Figure(figsize=(9, 0.62 * len(y) + 0.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(0, 1), ylim=(len(y), 0))
        axes.set_axis_off()
        for n, (source, target, said) in enumerate(zip(x["source"].tolist(), y.tolist(), found, strict=True)):
            wanted = _text(target, TARGET)
            right = _text(said, TARGET) == wanted
            axes.text(0, n + 0.3, _text(source, SOURCE), fontsize=11, color="#555555")
            axes.text(0.03, n + 0.72, _text(said, TARGET), fontsize=12, color="#0072B2" if right else "#D55E00")
            if not right:
                axes.text(1, n + 0.72, f"right: {wanted}", fontsize=11, color="#555555", ha="right")
        run.save_figure(figure)


def _text(numbers: list[int], words: list[str]) -> str:
    named = [words[number] for number in numbers if number > END or (words is SOURCE and number > 0)]
    return " ".join(named).replace(" - ", "-")
