"""A trial pass over the first samples, which leaves the run as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.types import Batch


def first_samples(training: Training) -> Batch:
    """A batch of the first two samples."""
    split = training.batches.split
    index = torch.arange(min(2, len(split)), device=training.device)
    return split.gather(index).to(training.device)


@contextmanager
def buffers_kept(objective: Objective) -> Iterator[list[Tensor]]:
    """Put the buffers back, for a pass in training moves the statistics of norms; yields their values before."""
    before = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    try:
        yield [value for _, value in before]
    finally:
        for buffer, value in before:
            buffer.copy_(value)
