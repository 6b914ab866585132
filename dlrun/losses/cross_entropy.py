"""Cross-entropy: the negative log-likelihood of the right class, in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.auxiliary import with_auxiliary_heads
from dlrun.losses.outputs import logits_and_classes
from dlrun.types import IGNORE_INDEX, Batch

__all__ = ["cross_entropy"]


@with_auxiliary_heads
def cross_entropy(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the logits and the target classes: [B].

    While gradients are on it returns their mean. A value is -log softmax(model(x))[y], in nats, for logits [B, C] and
    classes [B], or for logits [B, T, C] and classes [B, T]. `label_smoothing` ε trains towards 1-ε of the right class
    plus ε/C of each (Szegedy et al. 2016, arXiv:1512.00567). In training, auxiliary heads have their share. A target
    `IGNORE_INDEX` has the value 0 and no part in the mean.

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
    # in training the mean at once: a kernel and a backward less than the mean of values, which shows on a small network
    training = torch.is_grad_enabled()
    result = F.cross_entropy(
        logits.flatten(0, -2),
        y.flatten(),
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
        reduction="mean" if training else "none",
    )
    return result if training else result.view(y.shape)
