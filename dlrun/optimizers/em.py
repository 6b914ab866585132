"""Expectation maximisation, as an optimizer (Dempster, Laird, Rubin 1977, J. R. Stat. Soc. B 39)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.nll import nll
from dlrun.models.gaussian_mixture import GaussianMixture
from dlrun.optimizers.parameters import check_none_frozen, check_rate
from dlrun.types import Batch, Update

__all__ = ["EM"]


class Mixture(Protocol):
    """A mixture of K components that each have a closed form."""

    def responsibilities(self, x: Tensor) -> Tensor:
        """The posterior p(k | x) of each component, [N, K]."""

    def maximise(self, x: Tensor, weights: Tensor, reg_covar: float) -> None:
        """Set the parameters of the highest likelihood, given the samples' weights [N, K]."""


@dataclass
class EM:
    """Expectation maximisation: each step has at least the likelihood of the one before.

    A step computes p(k | x) of each sample, and then the weights, means and covariances that are best for them, in
    float64. `reg_covar` is added to the covariances' diagonals, so that no component shrinks to a point. The batch is
    the whole training set (`trainer.batch_size=null`; another is refused), the loss `nll`. There is no learning rate.
    It equals scikit-learn's `GaussianMixture` from the same beginning.
    """

    reg_covar: float = 1e-6
    whole_split: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a negative `reg_covar`."""
        check_rate("reg_covar", self.reg_covar)

    @property
    def lr(self) -> float:
        """One: a closed form has no learning rate."""
        return 1.0

    def init(self, objective: Objective) -> None:
        """Raise `ConfigError` unless a mixture is to have the highest likelihood, by all of its parameters."""
        _mixture(objective.model)
        check_none_frozen(objective.model, "em")
        if getattr(objective.loss, "func", objective.loss) is not nll:
            raise ConfigError("optimizer=em maximises the likelihood of the inputs. Type loss=nll, or optimizer=adam.")

    @torch.no_grad()
    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Take both steps; report the loss before them."""
        loss, model = objective(batch), _mixture(objective.model)
        shares = model.responsibilities(batch.x)
        if batch.weight is not None:
            shares = shares * batch.weight.to(shares)[:, None]
        model.maximise(batch.x, shares, self.reg_covar)
        return Update(loss, None)

    def flop(self, objective: Objective, samples: int) -> int:
        """The operations of a step: P(x - μ) twice, the means, the covariances and their inverse; 0 if not known.

        Of K components in D dimensions, N·K·(6 D² + 2 D) + 4/3 K·D³ of `dlrun.models.gaussian_mixture`'s mixtures.
        """
        model = objective.model
        if not isinstance(model, GaussianMixture):
            return 0
        components, size = model.means.shape
        return samples * components * (6 * size**2 + 2 * size) + 4 * components * size**3 // 3

    def state_dict(self) -> dict[str, Any]:
        """Empty: all is in the model's parameters."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def _mixture(model: nn.Module) -> Mixture:
    if not all(callable(getattr(model, name, None)) for name in ("responsibilities", "maximise")):
        raise ConfigError(
            f"optimizer=em was given the model `{type(model).__name__}`; it needs a mixture, with responsibilities(x) "
            "and maximise(x, weights, reg_covar). Type model=gaussian_mixture, or optimizer=adam."
        )
    return cast("Mixture", model)
