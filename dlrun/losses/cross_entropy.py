"""Cross-entropy: the negative log-likelihood of the right class, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.auxiliary import with_auxiliary_heads
from dlrun.losses.outputs import logits_and_classes
from dlrun.losses.weighted import Values, unweighted, weights_of
from dlrun.types import IGNORE_INDEX, Batch

__all__ = ["cross_entropy"]


@with_auxiliary_heads
def cross_entropy(
    model: nn.Module,
    batch: Batch,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | Literal["balanced"] | None = None,
) -> Values:
    """Cross-entropy of the logits and the target classes: [B].

    While gradients are on it returns their mean. A value is -log softmax(model(x))[y], in nats, for logits [B, C] and
    classes [B]; of classes for each element, [B, T] or [B, H, W], the logits have the classes last or on axis 1.
    `label_smoothing` ε trains towards 1-ε of the right class plus ε/C of each (Szegedy et al. 2016, arXiv:1512.00567).
    With `class_weights` [C] it is torch's weighted mean, Σ w·v / Σ w with w that of the target's class: the values and
    their weights, or the mean and the sum of the weights.
    In training, auxiliary heads have their share. A target `IGNORE_INDEX` has the value 0 and no part in the mean.

    Raises `ConfigError` for targets and outputs that do not fit, and for ε outside of 0 ≤ ε < 1.

    >>> batch = Batch(torch.zeros(2, 4), torch.tensor([3, IGNORE_INDEX]))
    >>> with torch.no_grad():
    ...     cross_entropy(nn.Identity(), batch)  # log 4, and nothing to predict
    tensor([1.3863, 0.0000])
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(
            f"loss.label_smoothing={label_smoothing}: expected 0 ≤ label_smoothing < 1. "
            "Type for example loss.label_smoothing=0.1"
        )
    logits, y = logits_and_classes(model, batch)
    weights = None if class_weights is None else _tensor(class_weights, logits)
    # in training the mean at once: a kernel and a backward less than the mean of values, which shows on a small network
    training = torch.is_grad_enabled() and batch.weight is None
    result = F.cross_entropy(
        logits.flatten(0, -2),
        y.flatten(),
        weight=weights,
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
        reduction="mean" if training else "none",
    )
    if weights is None:
        return result if training else result.view(y.shape)
    each = weights_of(y, weights)
    return (result, each.sum()) if training else (unweighted(result.view(y.shape), each), each)


def _tensor(class_weights: Sequence[float] | Tensor | str, like: Tensor) -> Tensor:
    if isinstance(class_weights, str):
        raise ConfigError("loss.class_weights=balanced: they are of a data set, which only a run has. Give a list.")
    # a tensor on the right device stays itself
    return torch.as_tensor(class_weights, dtype=torch.float32, device=like.device)
