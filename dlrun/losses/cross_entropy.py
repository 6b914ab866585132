"""The cross-entropy of class scores: the negative log-likelihood of the right class, in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.outputs import logits_and_classes
from dlrun.types import IGNORE_INDEX, Batch

__all__ = ["cross_entropy"]


def cross_entropy(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Return -log softmax(model(x))[y], in nats: a value a sample, or while gradients are taken their mean.

    The model returns scores [B, C] for class numbers [B], or [B, T, C] for [B, T]; the values have the
    shape of the class numbers. `label_smoothing` ε trains towards (1-ε) of the right class and ε/C of
    every class (Szegedy et al. 2016). Targets that are `IGNORE_INDEX` have no part in the mean, and the value 0.
    Raises ConfigError for targets or scores that do not fit.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(
            f"loss.label_smoothing is {label_smoothing}; expected is 0 ≤ label_smoothing < 1. "
            "Type for example loss.label_smoothing=0.1"
        )
    logits, y = logits_and_classes(model, batch)
    # The mean is one kernel and one backward less than the mean of values: it shows on a small network.
    training = torch.is_grad_enabled()
    result = F.cross_entropy(
        logits.flatten(0, -2),
        y.flatten(),
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
        reduction="mean" if training else "none",
    )
    return result if training else result.view(y.shape)
