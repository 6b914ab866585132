"""Steps taken again from a checkpoint, recorded nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor

from dlrun.engine.batches import Batches
from dlrun.engine.loop import Training
from dlrun.terminal.format import plural
from dlrun.types import Batch, Split


def replay(training: Training, start: int, end: int) -> None:
    """Take the steps after `start` up to `end`."""
    if start >= end:
        return
    training.objective.train()
    stepper = training.stepper()
    with closing(stepper.start(start)) as blocks:
        for block in blocks:
            stepper.take(start, block[: end - start])
            start += len(block)
            if start >= end:
                return


def batch_of(training: Training, step: int) -> Batch:
    """The batch of a step, counted from 1."""
    with closing(training.batches.start(step - 1)) as batches:
        return next(batches)


def samples_of(training: Training, step: int) -> list[int] | None:
    """The places in the training split of a step's batch; None of a stream, which has none."""
    batches = training.batches
    if not isinstance(batches, Batches):
        return None
    epoch, position = divmod(step - 1, batches.per_epoch)
    # of several processes each would say its own part
    found: list[int] = Batches.indices(batches, epoch)[position].tolist()
    return found


def odd_samples(split: Split, places: Sequence[int], device: torch.device) -> list[int]:
    """Those samples whose inputs, targets or weights have a number that is not finite."""
    batch = split.gather(torch.tensor(places, device=device)).to(device)
    odd = torch.zeros(batch.size, dtype=torch.bool, device=device)
    for tensor in batch.tensors():
        if tensor.is_floating_point():
            odd |= ~tensor.flatten(1).isfinite().all(1) if tensor.ndim > 1 else ~tensor.isfinite()
    return [place for place, each in zip(places, odd.tolist(), strict=True) if each]


def are_finite(tensors: Sequence[Tensor]) -> bool:
    """Are all numbers of some tensors finite? Waits for the device."""
    if not tensors:
        return True
    norms = torch.stack([norm.to(tensors[0].device) for norm in torch._foreach_norm([t.detach() for t in tensors])])
    return bool(norms.isfinite().all()) or all(bool(t.isfinite().all()) for t in tensors)


def words(places: Sequence[int], *, most: int = 8) -> str:
    """Some of a batch's samples, in words.

    >>> words([4, 7]), words(range(10), most=3)
    ('samples 4, 7', 'samples 0, 1, 2, … (10)')
    """
    shown = ", ".join(map(str, places[:most]))
    return f"{plural('sample', len(places))} {shown}" + (f", … ({len(places)})" if len(places) > most else "")
