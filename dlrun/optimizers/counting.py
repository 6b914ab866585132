"""Counting, as an optimizer: a model of counts sees each training window once."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.types import Batch, Update

__all__ = ["Counting"]

LOGITS = 2**24
"""The most logits for the loss before a step: 64 MiB of them."""


class Counted(Protocol):
    """A model fitted by counting."""

    vocabulary: int

    def count(self, x: Tensor, y: Tensor) -> None:
        """Count windows x [B, T] with targets y [B, T].

        Targets below 0 are not predicted, and not counted.
        """


class Counting:
    """Let the model count the batch.

    The batch is the whole training set, counted once: `trainer.batch_size=null trainer.steps=1`. Any other is refused
    before the first step. There is no learning rate. A step reports the loss before it; for a batch with more than
    `LOGITS` logits, the loss of as many windows, evenly spaced, since a whole corpus's logits do not fit in memory.
    """

    whole_split = True
    one_step = True  # a second step would count all again

    @property
    def lr(self) -> float:
        """One: counting has no learning rate."""
        return 1.0

    def init(self, objective: Objective) -> None:
        """Raise `ConfigError` unless the model can count."""
        _counted(objective.model)

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Count the batch; report the loss before it."""
        model = _counted(objective.model)
        if batch.weight is not None:
            raise ConfigError("optimizer=counting counts each sample once; these have weights. Leave them out.")
        # a loss may be another without gradients; this is the one of training, though no gradient is taken
        with torch.enable_grad():
            loss = objective(subsample(batch, LOGITS // (model.vocabulary * batch.x[0].numel()))).detach()
        with torch.no_grad():
            model.count(batch.x, batch.y)
        return Update(loss, None)

    def state_dict(self) -> dict[str, Any]:
        """Empty: the counts are the model's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def subsample(batch: Batch, most: int) -> Batch:
    """At most `most` samples, but one at least, evenly spaced.

    >>> subsample(Batch(torch.arange(10), torch.arange(10)), 3).x
    tensor([0, 3, 6])
    """
    # one at least, though a window alone may have too many logits
    size, number = batch.size, max(1, most)
    if size <= number:
        return batch
    return batch.rows(torch.arange(number, device=batch.x.device) * size // number)


def _counted(model: nn.Module) -> Counted:
    if not callable(getattr(model, "count", None)) or not hasattr(model, "vocabulary"):
        raise ConfigError(
            f"optimizer=counting was given the model `{type(model).__name__}`; it needs one with count(x, y). "
            "Type model=ngram or model=uniform, or optimizer=adamw."
        )
    return cast("Counted", model)
