"""An embedding in the plane: itself if it has two components, else its first two principal components."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def embedding(
    points: Tensor, y: Tensor, names: Sequence[str] = (), held_out: Collection[int] = (), source: str = ""
) -> Figure:
    """Draw embeddings [N, D] of classes `y` [N], with D of 2 or more; those `held_out` of training have black edges.

    `source` says in the legend where the samples are from.
    """
    shown, shares = in_the_plane(points)
    classes = sorted({*y.tolist()})
    # those that nobody trained on lie on top
    order = [c for c in classes if c not in held_out] + [c for c in classes if c in held_out]
    with style_context():
        fig = figure(7.6, 5.6)
        axes = fig.add_subplot()
        for c in order:
            own, apart = shown[y == c].numpy(), c in held_out
            axes.scatter(
                own[:, 0],
                own[:, 1],
                s=26 if apart else 20,
                color=COLOURS[c % len(COLOURS)],
                # a colour comes again after eight classes, its marker after nine
                marker=MARKERS[(c + c // len(COLOURS)) % len(MARKERS)],
                edgecolors=BLACK if apart else "none",
                linewidths=0.7,
                alpha=0.9 if apart else 0.6,
                label=(names[c] if len(names) > c else f"class {c}") + (" (held out)" if apart else ""),
            )
        axes.grid(False)
        axes.set(xlabel=_label(0, shares), ylabel=_label(1, shares))
        axes.set_aspect("equal", adjustable="datalim")
        fig.legend(
            loc="outside right upper", title=f"{len(y):,} samples" + (f"\n{source}" if source else ""), markerscale=1.3
        )
    return fig


def in_the_plane(points: Tensor) -> tuple[Tensor, list[float]]:
    """Embeddings [N, D] as points [N, 2], and the share of the variance along each axis.

    Of two components there are none: the points are the embeddings themselves.

    >>> in_the_plane(torch.tensor([[0.0, 3.0, 0.0], [0.0, -3.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))[1]
    [0.9, 0.1]
    """
    if points.shape[1] == 2:
        return points, []
    centred = points.double() - points.double().mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    # a direction has no sign: its largest component is positive
    top = directions[:2]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    variances = sizes.square()
    return (centred @ top.T).float(), [round(float(v), 4) for v in variances[:2] / variances.sum().clamp(min=1e-30)]


def _label(axis: int, shares: Sequence[float]) -> str:
    if not shares:
        return f"component {axis + 1} of the embedding"
    return f"principal component {axis + 1}, {shares[axis]:.0%} of the variance"
