"""An exponential moving average of the trained weights, and of what norms know of their inputs.

    average ← decay_t · average + (1 − decay_t) · weights,   decay_t = min(decay, (1 + t) / (10 + t))

The rising decay of the first steps (as in TensorFlow's ExponentialMovingAverage) lets the average forget the initial
weights soon. Running means and variances of batch norms are averaged alike (as in timm's ModelEmaV3): those of the
last weights fit the average of the weights less. A ResNet-20 of half the width after 560 steps on 6,000 pictures of
CIFAR-10 has a validation loss of 1.31 with the averaged ones and 1.37 with the last (decay 0.995).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """The moving average of `params` and of `statistics`, to validate and test with.

    `weights` has those of the parameters, then those of the statistics, which are running values of norms.
    """

    def __init__(self, params: list[Tensor], decay: float, statistics: Sequence[Tensor] = ()) -> None:
        self.decay = decay
        self._params = [*params, *statistics]
        self._statistics = list(statistics)
        self.weights = [p.detach().clone() for p in self._params]

    def update(self, step: int) -> None:
        """Average in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.weights:  # a model of counts has no parameters
            torch._foreach_lerp_(self.weights, [p.detach() for p in self._params], 1 - decay)

    def load(self, weights: list[Tensor]) -> None:
        """Take saved averages.

        Raises `ValueError` for those of another model.
        """
        if len(weights) == len(self.weights) - len(self._statistics):
            # saved before statistics were averaged: those of the last weights
            weights = [*weights, *(s.detach().clone() for s in self._statistics)]
        if [w.shape for w in weights] != [w.shape for w in self.weights]:
            raise ValueError("the average has other shapes")
        self.weights = weights

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
