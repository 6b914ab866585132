"""Passes over a few samples, with equal draws at each: does a part's result depend on the passes before?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from dlrun.engine.evaluation import evaluating, totals
from dlrun.engine.objective import Objective
from dlrun.randomness import preserve_generators, seed_default, seed_libraries
from dlrun.types import Batch, Metric, Split

FEW = 2
"""Samples of a pass."""


def make_forward(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, device: torch.device
) -> Callable[[int], float]:
    """A function of the number of a batch, 0 or 1: a pass in training, one in evaluation, and the first one's loss.

    Buffers are put back after each.
    """
    few = min(FEW, len(split))

    def batch(number: int) -> Batch:
        # another batch, if there are as many samples
        first = number * few if 2 * few <= len(split) else 0
        x, y = split.gather(torch.arange(first, first + few, device=device))
        return Batch(x.to(device), y.to(device))

    def forward(number: int) -> float:
        buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
        one = batch(number)
        with preserve_generators():
            seed_libraries(number)
            seed_default(device, number)
            loss = objective(one).detach()
            with evaluating(objective):
                totals(objective, metrics, one)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        return float(loss)

    return forward
