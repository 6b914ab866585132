"""The negative log-likelihood of a density: -log p(x), in nats (Fleuret's book, 3.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.types import Batch

__all__ = ["nll"]


def nll(model: nn.Module, batch: Batch) -> Tensor:
    """The negative log-likelihood of the inputs under the model's density: [B], in nats.

    A value is -model.log_prob(x). The targets have no part. Raises `ConfigError` for a model without `log_prob`, and
    for one that returns anything but one number a sample.
    """
    log_prob: Any = getattr(model, "log_prob", None)
    if not callable(log_prob):
        raise ConfigError(
            f"loss=nll asks the model for log_prob(x); `{type(model).__name__}` has none. Type model=gaussian_mixture, "
            "or for classes loss=cross_entropy."
        )
    found: Any = log_prob(batch.x)
    if not isinstance(found, Tensor) or found.shape != batch.x.shape[:1]:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"`{type(model).__name__}.log_prob` returned {shape} for {len(batch.x)} samples; expected one number each."
        )
    return -found


# a run with this loss learns a density: its task is that, whatever targets the data set has
setattr(nll, "task", "density")  # noqa: B010  # a function's type has no attributes


def is_of_density(loss: object) -> bool:
    """Does a loss say by an attribute `task = "density"` that it takes no targets?

    >>> is_of_density(nll), is_of_density(len)
    (True, False)
    """
    return getattr(getattr(loss, "func", loss), "task", None) == "density"
