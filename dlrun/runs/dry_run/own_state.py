"""Passes over a few samples, with equal draws at each: does a part's result depend on the passes before?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from dlrun.engine.evaluation import evaluating, totals
from dlrun.engine.forward.recomputing import recomputing
from dlrun.engine.objective import Objective
from dlrun.engine.own.state import OwnState
from dlrun.errors import ConfigError
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
        return split.gather(torch.arange(first, first + few, device=device)).to(device)

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


def check_repeatable(model: nn.Module, own: OwnState) -> None:
    """Raise `ConfigError` for a model that computes activations again, but has state or draws that would differ."""
    if not recomputing(model):
        return
    others = ("loss.", "metrics.", "schedule.", "augment.")
    changing = [name for name in [*own.saved, *own.lost] if not name.startswith(others)]
    if changing or own.drawn:
        why = f"{changing[0]} changes in each pass" if changing else f"the parts draw from {own.drawn[0]}"
        raise ConfigError(
            f"The model {type(model).__name__} computes activations again in the backward pass, where they would be "
            f"others: {why}. Type trainer.activation_checkpointing=false, or keep it in a buffer and draw from torch."
        )
