"""Counting, as an optimizer: a model whose parameters are counts sees each training window once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.types import Batch, Update

__all__ = ["Counting"]

if TYPE_CHECKING:
    from dlrun.engine.objective import Objective

LOGITS = 2**24
"""The most logits that the loss before a step is computed from: 64 MiB of them."""


class Counted(Protocol):
    """A model that is fitted by counting."""

    vocabulary: int

    def count(self, x: Tensor, y: Tensor) -> None:
        """Add windows x [B, T] with the targets y [B, T], those below 0 not predicted, to the counts."""


class Counting:
    """Have the model count the batch, which should be the whole training set.

    That is `trainer.batch_size=null trainer.steps=1`; of smaller batches the counts add up to the same
    over an epoch of windows that are not moved. There is no learning rate. The loss that a step
    reports is that before it; of a batch with more than `LOGITS` logits it is that of as many windows,
    evenly spaced, since a whole corpus's would not fit in memory.
    """

    @property
    def lr(self) -> float:
        """One: counting has no learning rate, and takes no notice of it."""
        return 1.0

    def init(self, objective: Objective) -> None:
        """Raise ConfigError unless the model can count."""
        _counted(objective.model)

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Count the batch; the loss is that before it, as with every optimizer."""
        model = _counted(objective.model)
        # with gradients, though there are none to take, the loss is the mean as it is defined for training
        with torch.enable_grad():
            loss = objective(spaced(batch, LOGITS // (model.vocabulary * batch.x[0].numel()))).detach()
        with torch.no_grad():
            model.count(batch.x, batch.y)
        return Update(loss, None)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the counts are the model's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over nothing."""


def spaced(batch: Batch, most: int) -> Batch:
    """Return at most `most` samples of the batch (but one at least), evenly spaced.

    >>> spaced(Batch(torch.arange(10), torch.arange(10)), 3).x
    tensor([0, 3, 6])
    """
    size, number = len(batch.x), max(1, most)
    if size <= number:
        return batch
    index = torch.arange(number, device=batch.x.device) * size // number
    return Batch(batch.x[index], batch.y[index])


def _counted(model: nn.Module) -> Counted:
    if not callable(getattr(model, "count", None)) or not hasattr(model, "vocabulary"):
        raise ConfigError(
            f"optimizer=counting was given the model `{type(model).__name__}`; it needs one with count(x, y). "
            "Type model=ngram or model=uniform, or optimizer=adamw."
        )
    return cast("Counted", model)
