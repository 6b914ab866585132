"""The closed form of linear regression: the coefficients of least squared error, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.optimizers.parameters import check_none_frozen, check_rate
from dlrun.types import Batch, Update

__all__ = ["LeastSquares"]


class LinearInCoefficients(Protocol):
    """A model with model(x) = features(x) @ coefficients.

    The features are [N, F], the coefficients [F, O].
    """

    coefficients: Tensor

    def features(self, x: Tensor) -> Tensor:
        """The features of `x`, [N, F]."""


@dataclass
class LeastSquares:
    """Linear least squares, in closed form.

    The coefficients W become the minimum of ‖Φ·W - Y‖² + ridge·‖W‖² over the batch; of samples with weights w that of
    Σ w·‖φ·W - y‖² + ridge·‖W‖². Φ are the model's features, in
    float64. The batch is the whole training set (`trainer.batch_size=null trainer.steps=1`; another is refused), the
    loss `mse`: the solution takes no notice of it. LAPACK's `gelsd` (a singular value decomposition) solves it on the
    host. Where Φ has not full rank in the type of the coefficients, it returns the solution of least norm: singular
    values below the rounding count as zero, since their contributions, huge and cancelling, would not survive the
    rounding of W. The ridge penalises all coefficients, also that of a constant feature.
    """

    ridge: float = 0.0
    whole_split: ClassVar[bool] = True
    one_step: ClassVar[bool] = True  # a second step would find the same

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a negative ridge."""
        check_rate("ridge", self.ridge)

    @property
    def lr(self) -> float:
        """One: a closed form has no learning rate."""
        return 1.0

    def init(self, objective: Objective) -> None:
        """Raise `ConfigError` unless the model is linear in its coefficients, which are real and not frozen."""
        if _linear(objective.model).coefficients.is_complex():
            raise ConfigError(
                "optimizer=least_squares solves for real coefficients; these are complex. Type optimizer=lbfgs"
            )
        check_none_frozen(objective.model, "least_squares")

    @torch.no_grad()
    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Solve for the coefficients; report the loss before it."""
        loss = objective(batch)
        model = _linear(objective.model)
        y = batch.y
        if not y.is_floating_point():
            raise ConfigError(
                f"optimizer=least_squares fits real-valued targets; these are {y.dtype} (classes). "
                "Type optimizer=sgd or optimizer=adamw, or choose a regression, dataset=polynomial."
            )
        features = _features(objective.model, batch.x).double().cpu()
        targets = y.detach().cpu().double().reshape(len(y), -1)
        if batch.weight is not None:
            root = batch.weight.cpu().double().sqrt()[:, None]
            features, targets = root * features, root * targets
        found = solve(features, targets, ridge=self.ridge, rounding=torch.finfo(model.coefficients.dtype).eps)
        model.coefficients.copy_(found.reshape(model.coefficients.shape))
        return Update(loss, None)

    def flop(self, objective: Objective, samples: int) -> int:
        """The operations of a solution: 2 N F² + 11 F³ of the decomposition, and 2 N F O of the targets.

        By Golub and Van Loan, Matrix Computations, 5.5: the singular values of R, after a QR decomposition.
        """
        coefficients = _linear(objective.model).coefficients
        features, rows = coefficients.shape[0], samples + (coefficients.shape[0] if self.ridge else 0)
        return 2 * rows * features**2 + 11 * features**3 + 2 * rows * coefficients.numel()

    def state_dict(self) -> dict[str, Any]:
        """Empty: a closed form has no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def solve(features: Tensor, targets: Tensor, *, ridge: float = 0.0, rounding: float = 0.0) -> Tensor:
    """Minimise ‖features·W - targets‖² + ridge·‖W‖² over W [F, O].

    Singular values below `rounding` times the largest count as zero; those below max(N, F) times the
    rounding of the matrix's own type always do.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> torch.round(solve(x, x @ torch.tensor([[2.0], [3.0]], dtype=torch.float64)), decimals=6).T
    tensor([[2., 3.]], dtype=torch.float64)
    """
    if ridge:
        # the penalty as further rows, √ridge·W = 0: no squared condition number, as XᵀX would have.
        count = features.shape[1]
        features = torch.cat([features, ridge**0.5 * torch.eye(count, dtype=features.dtype)])
        targets = torch.cat([targets, targets.new_zeros(count, targets.shape[1])])
    cutoff = max(rounding, max(features.shape) * torch.finfo(features.dtype).eps)
    solution: Tensor = torch.linalg.lstsq(features, targets, rcond=cutoff, driver="gelsd").solution
    return solution


def _linear(model: nn.Module) -> LinearInCoefficients:
    if not callable(getattr(model, "features", None)) or not isinstance(getattr(model, "coefficients", None), Tensor):
        raise ConfigError(
            f"optimizer=least_squares was given the model `{type(model).__name__}`; it needs one with features(x) "
            "and coefficients, linear in them. Type model=polynomial or model=linear, or optimizer=lbfgs."
        )
    return cast("LinearInCoefficients", model)


def _features(model: nn.Module, x: Tensor) -> Tensor:
    """The features, in float64 if they are fixed."""
    linear = _linear(model)
    # other parameters may take part in them, with a type of their own
    fixed = all(p is linear.coefficients for p in model.parameters())
    if fixed and x.is_floating_point() and x.device.type != "mps":  # MPS has no float64
        x = x.double()
    return linear.features(x)
