"""Trees on the rows that the network learns from."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier, plot_tree
from torch import Tensor

from dlrun.observers.view import RunView
from dlrun.types import Split


class Trees:
    """At the end, `figures/trees.png`: a small tree, and validation errors of it, of boosted trees and of the network.

    The trees are fitted to the training rows, with the columns as the network gets them.
    """

    def __init__(self, depth: int = 2) -> None:
        self.depth = depth

    def on_end(self, run: RunView) -> None:
        if run.status != "finished":
            return
        x, y = _rows(run.train, run.device)
        unseen, wanted = _rows(run.validation, run.device)
        small = DecisionTreeClassifier(max_depth=self.depth, min_samples_leaf=5, random_state=0)
        small.fit(x.cpu(), y.cpu())
        boosted = HistGradientBoostingClassifier(random_state=0).fit(x.cpu(), y.cpu())
        with run.model() as model:
            found = model(unseen).argmax(1).cpu().numpy()
        right = wanted.cpu().numpy()
        errors = {
            "always the commoner": np.mean(right != np.bincount(y.cpu()).argmax()),
            f"a tree of depth {self.depth}": np.mean(small.predict(unseen.cpu()) != right),
            "boosted trees": np.mean(boosted.predict(unseen.cpu()) != right),
            "the network": np.mean(found != right),
        }
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        FigureCanvasAgg(figure)  # plot_tree measures its texts
        left, beside = figure.subplots(1, 2, width_ratios=[1.5, 1])
        plot_tree(
            small, ax=left, class_names=[*run.spec.class_names], impurity=False, filled=True, fontsize=9, precision=1
        )
        bars = beside.barh([*errors], [*errors.values()], color=["#999999", "#E69F00", "#009E73", "#0072B2"])
        beside.bar_label(bars, fmt="{:.1%}", padding=3)
        beside.set(xlabel="validation error", xlim=(0, 1.2 * max(errors.values())))
        beside.invert_yaxis()
        run.save_figure(figure)


def _rows(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    x, y = split.gather(torch.arange(len(split), device=device))
    return x.flatten(1), y
