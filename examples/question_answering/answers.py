"""Stories with the answers of the model, as a table."""

from __future__ import annotations

import textwrap

import torch
from matplotlib.figure import Figure
from stories import PLACES, WORDS

from dlrun.observers.view import RunView


class Answers:
    """At the end, `figures/answers.png`: validation stories, the likeliest answer, and the right one beside a wrong."""

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        index = torch.arange(min(self.samples, len(run.validation)), device=run.device)
        x, y = run.validation.gather(index)
        with run.model() as model:
            chances, found = model(x).softmax(1).max(1)
        told = ["\n".join(textwrap.wrap(_text(row), 100)) for row in x.tolist()]
        lines = [1 + text.count("\n") for text in told]
        figure = Figure(figsize=(12, 0.27 * (sum(lines) + 1.6 * len(told))), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(0, 1), ylim=(sum(lines) + 1.6 * len(told), 0))
        axes.set_axis_off()
        top = 0.0
        for n, text in enumerate(told):
            axes.text(0, top, text, fontsize=11, va="top")
            wanted, answer = PLACES[int(y[n])], PLACES[int(found[n])]
            said = f"{answer}  {chances[n]:.0%}" + (f"   (right: {wanted})" if answer != wanted else "")
            colour = "#0072B2" if answer == wanted else "#D55E00"
            axes.text(0.03, top + lines[n] + 0.15, said, fontsize=12, va="top", color=colour, weight="bold")
            top += lines[n] + 1.6
        run.save_figure(figure)


def _text(numbers: list[int]) -> str:
    words = " ".join(WORDS[number] for number in numbers if number > 0)
    return words.replace(" .", ".").replace(" ?", "?")
