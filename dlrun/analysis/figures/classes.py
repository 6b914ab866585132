"""A classifier's confusion matrix and its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.style import figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_MISTAKES = 24  # four rows of six
READABLE = 20  # classes up to which each cell shows its count


def are_probabilities(outputs: Tensor) -> bool:
    """Are the rows of outputs [N, C] probabilities, as a loss of the user's own may take them?"""
    return bool((outputs >= 0).all()) and bool((outputs.sum(1) - 1).abs().max() < 1e-3)


def as_probabilities(outputs: Tensor) -> Tensor:
    """The softmax of logits [N, C]; probabilities as they are."""
    return outputs if are_probabilities(outputs) else outputs.softmax(1)


def confusion(targets: Tensor, predictions: Tensor, names: Sequence[str] = ()) -> Figure:
    """Draw the confusion matrix of classes, int64 [N].

    True classes down, predicted classes across. The shade is the fraction of the row, on a power scale on which few
    mistakes among many samples are visible.
    """
    from matplotlib.colors import PowerNorm

    counts = confusion_counts(targets, predictions, classes=len(names))
    classes = len(counts)
    # a class without samples has a row of zeros
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    wrong, total = int((targets != predictions).sum()), len(targets)
    side = min(3 + 0.42 * classes, 11)
    with style_context():
        fig = figure(side, side)
        axes = fig.add_subplot()
        shades = axes.imshow(share.numpy(), cmap="Blues", norm=PowerNorm(0.35, 0, 1))
        axes.grid(False)
        if classes <= READABLE:
            for i, j in counts.nonzero().tolist():
                # a share of 0.35 lies at 0.69 of this power scale, where the blue turns dark
                colour = "white" if share[i, j] > 0.35 else "black"
                axes.text(j, i, f"{int(counts[i, j])}", ha="center", va="center", color=colour, fontsize=11)
            labels = list(names) or [str(c) for c in range(classes)]
            turn = 45 if max(map(len, labels)) > 3 else 0
            axes.set_xticks(range(classes), labels, rotation=turn, ha="right" if turn else "center")
            axes.set_yticks(range(classes), labels)
        else:
            fig.colorbar(shades, label="share of the class", shrink=0.7)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"{wrong:,} of {total:,} wrong ({wrong / max(total, 1):.2%})")
    return fig


def confusion_counts(targets: Tensor, predictions: Tensor, *, classes: int = 0) -> Tensor:
    """The confusion matrix, int64 [K, K].

    Entry (i, j) counts samples of class i predicted as j.

    >>> confusion_counts(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    tensor([[1, 1],
            [0, 1]])
    """
    if len(targets) == 0:
        return torch.zeros(classes, classes, dtype=torch.int64)
    classes = max(classes, int(targets.max()) + 1, int(predictions.max()) + 1)
    return torch.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def worst_mistakes(x: Tensor, targets: Tensor, probabilities: Tensor, names: Sequence[str] = ()) -> Figure | None:
    """Draw the misclassified images with the least probable true class.

    `x` [N, C, H, W] with C = 1 or 3, `targets` int64 [N], `probabilities` [N, K]. None if the inputs are no images or
    no image is misclassified.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None
    predictions = probabilities.argmax(1)
    wrong = (predictions != targets).nonzero()[:, 0]
    if not len(wrong):
        return None
    right = probabilities[wrong, targets[wrong]]
    worst = wrong[right.argsort(stable=True)[:MAX_MISTAKES]]
    names = list(names) or [str(c) for c in range(probabilities.shape[1])]
    words = []
    for i in worst.tolist():
        taken = int(predictions[i])
        words.append(f"{names[int(targets[i])]} → {names[taken]}  {probabilities[i, taken]:.0%}")
    with style_context():
        fig = _gallery(pixels(x, worst), words)
        fig.suptitle(f"The worst of {len(wrong):,} mistakes: true → predicted, its probability", fontsize=13)
    return fig


def _gallery(pictures: Tensor, words: Sequence[str]) -> Figure:
    """Draw pictures [n, H, W(, 3)] in rows of six."""
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    long = max(map(len, words)) > 14
    fig = figure(max((2.6 if long else 1.75) * columns, 6), 2.05 * rows + 0.5)
    axes = fig.add_subplot()  # one for all pictures: axes for each take four times as long to draw
    across = 1.6 if long else 1.15
    for place, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        left, top = across * (place % columns), -1.3 * (place // columns)
        axes.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=1, extent=(left, left + 1, top - 1, top))
        axes.text(left + 0.5, top + 0.05, word, ha="center", va="bottom", fontsize=11)
    axes.set(xlim=(-0.1 * across, across * columns), ylim=(-1.3 * rows + 0.25, 0.3), aspect="equal")
    axes.set_axis_off()
    return fig


def pixels(x: Tensor, chosen: Tensor) -> Tensor:
    """The chosen images in 0 … 1.

    [n, H, W] or [n, H, W, 3]. Each channel is scaled by its range over all of `x`, which undoes a normalisation.
    """
    low, high = x.amin((0, 2, 3), keepdim=True), x.amax((0, 2, 3), keepdim=True)
    shown = (x[chosen] - low) / (high - low).clamp(min=1e-12)
    return shown[:, 0] if x.shape[1] == 1 else shown.movedim(1, -1)
