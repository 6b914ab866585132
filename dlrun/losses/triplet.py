"""The triplet loss of metric learning: an anchor is nearer to its own class than to others, by a margin.

    max(0, margin - f(x_a, x_c) + f(x_a, x_b))    with y_a = y_b ≠ y_c

Fleuret's book, 3.1; f is the distance of two embeddings. The triplets are of the samples of a batch:

- random: of each anchor a random b and a random c,
- hard: of each anchor the farthest b and the nearest c (Hermans, Beyer, Leibe 2017, arXiv:1703.07737),
- semi_hard: of each pair (a, b) the nearest c that is farther away than b, or else the farthest c (Schroff,
  Kalenichenko, Philbin 2015, arXiv:1503.03832; as in TensorFlow's `triplet_semihard_loss`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.distances import squared_distances
from dlrun.losses.outputs import embeddings_and_classes
from dlrun.types import Batch

__all__ = ["triplet"]

TINY = 1e-12
"""A squared distance below which the root has no gradient: it would be infinite at 0."""


def triplet(
    model: nn.Module,
    batch: Batch,
    mining: Literal["random", "semi_hard", "hard"] = "semi_hard",
    margin: float = 1.0,
    distance: Literal["euclidean", "squared"] = "euclidean",
    normalise: bool = False,
) -> tuple[Tensor, Tensor]:
    """The mean triplet loss of each anchor, and the anchor's weight in the mean over the batch: [B] both.

    The embeddings are float [B, D], the classes int64 [B]. With `normalise`, an embedding is divided by its norm
    before f, the Euclidean distance or its square. A weight is 1, of semi-hard triplets the number of pairs (a, b);
    it is 0 for an anchor without b or without c. While gradients are off, the value of random mining is its
    expectation: the mean over all triplets of the anchor.

    Raises `ConfigError` for outputs and targets of another shape, and for a margin that is not above 0.

    >>> line = Batch(torch.tensor([[0.0], [1.0], [1.5], [4.0]]), torch.tensor([0, 0, 1, 1]))
    >>> triplet(nn.Identity(), line, mining="hard")[0]  # of the first anchor 1 - 1.5 + 1, of the last 1 - 3 + 2.5
    tensor([0.5000, 1.5000, 3.0000, 0.5000])
    """
    if not margin > 0:
        raise ConfigError(f"loss.margin={margin}: expected a number above 0. Type for example loss.margin=1")
    outputs, y = embeddings_and_classes(model, batch)
    z = F.normalize(outputs.float(), dim=1) if normalise else outputs.float()
    d = squared_distances(z, z)
    if distance == "euclidean":
        d = d.clamp(min=TINY).sqrt()
    same = y[:, None] == y
    positive, negative = same & ~torch.eye(len(y), dtype=torch.bool, device=y.device), ~same
    values, pairs = MINING[mining](d, positive, negative, margin)
    weights = (pairs * negative.any(1)).to(values.dtype)
    if torch.is_grad_enabled():
        # a batch without a triplet has the loss 0, and not 0 / 0
        weights = weights + (weights.sum() == 0)
    return values, weights


def _random(d: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    if not torch.is_grad_enabled():
        return _expected(d, positive, negative, margin)
    draw = torch.rand(d.shape, device=d.device)
    near, far = (
        d.gather(1, draw.masked_fill(~mask, -1).argmax(1, keepdim=True))[:, 0] for mask in (positive, negative)
    )
    valid = positive.any(1) & negative.any(1)
    return F.relu(margin + near - far) * valid, positive.any(1)


def _expected(d: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The mean over all triplets of an anchor."""
    # of each pair the sum over the c that are nearer than margin + f(a, b), by their sums in order: B² log B, not B³
    ordered = d.masked_fill(~negative, torch.inf).sort(1).values
    bound = margin + d
    number = torch.searchsorted(ordered, bound)
    sums = F.pad(_cumulated(ordered.masked_fill(ordered.isinf(), 0)), (1, 0))
    total = ((number * bound - sums.gather(1, number)) * positive).sum(1)
    return total / (positive.sum(1) * negative.sum(1)).clamp(min=1), positive.any(1)


def _cumulated(rows: Tensor) -> Tensor:
    # on CUDA it has no deterministic form, and torch refuses it there
    host = rows.is_cuda and torch.are_deterministic_algorithms_enabled()
    return rows.cpu().cumsum(1).to(rows.device) if host else rows.cumsum(1)


def _hard(d: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    farthest = d.masked_fill(~positive, -torch.inf).amax(1)
    nearest = d.masked_fill(~negative, torch.inf).amin(1)
    # of an anchor without b or c it is relu(-∞), which is 0
    return F.relu(margin + farthest - nearest), positive.any(1)


def _semi_hard(d: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    ordered = d.masked_fill(~negative, torch.inf).sort(1).values
    place = torch.searchsorted(ordered.detach(), d.detach(), right=True)
    # of infinite ones, behind the negatives, the last negative
    last = (negative.sum(1, keepdim=True) - 1).clamp(min=0)
    pairs = F.relu(margin + d - ordered.gather(1, torch.minimum(place, last))) * positive
    number = positive.sum(1)
    return pairs.sum(1) / number.clamp(min=1), number


MINING = {"random": _random, "hard": _hard, "semi_hard": _semi_hard}

# its value is of a batch, and a run with it learns an embedding, of as many components as the model has outputs
setattr(triplet, "of_batch", True)  # noqa: B010  # a function's type has no attributes
setattr(triplet, "task", "embedding")  # noqa: B010


def learns_embedding(loss: object) -> bool:
    """Does a loss say by an attribute `task = "embedding"` that it compares outputs, whatever the classes?

    >>> learns_embedding(triplet), learns_embedding(len)
    (True, False)
    """
    return getattr(getattr(loss, "func", loss), "task", None) == "embedding"
