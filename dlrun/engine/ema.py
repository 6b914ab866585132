"""An exponential moving average of the trained weights.

    average ← decay_t · average + (1 − decay_t) · weights,   decay_t = min(decay, (1 + t) / (10 + t))

The rising decay of the first steps (as in TensorFlow's ExponentialMovingAverage) lets the average
forget the initial weights soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """The moving average of `params`, to validate and test with."""

    def __init__(self, params: list[Tensor], decay: float) -> None:
        self.decay = decay
        self._params = params
        self.weights = [p.detach().clone() for p in params]

    def update(self, step: int) -> None:
        """Average in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.weights:  # a model of counts has no parameters
            torch._foreach_lerp_(self.weights, [p.detach() for p in self._params], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the average and the weights within the context."""
        with torch.no_grad():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def _swap(self) -> None:
        # in place: optimizers and CUDA graphs hold these very tensors
        for parameter, weight in zip(self._params, self.weights, strict=True):
            held = parameter.clone()
            parameter.copy_(weight)
            weight.copy_(held)
