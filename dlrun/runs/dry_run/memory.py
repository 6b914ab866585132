"""A batch in parts: whether its loss allows them, and how many the memory asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from dlrun.engine.batches import LoaderSplit
from dlrun.engine.failures.memory import Memory, TooLarge, why_whole
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.engine.reading.streams import StreamSplit
from dlrun.errors import ConfigError
from dlrun.optimizers.descent import Descent
from dlrun.types import Batch


def check_parts(optimizer: Optimizer, objective: Objective, few: Batch, *, size: int, loss: str) -> None:
    """Refuse to sum the gradients of a batch's parts where that is not the gradient of the batch."""
    if not isinstance(optimizer, Descent):
        return
    most, parts = optimizer.memory.size, optimizer.accumulate
    given, typed = f"trainer.accumulate={parts}", "trainer.accumulate=1"
    if most is not None and most < size:
        parts = max(parts, ceil(size / most))
        given, typed = f"trainer.micro_batch={most}", "trainer.micro_batch=null"
    if parts > 1 and (why := why_whole(objective, few)) is not None:
        raise ConfigError(
            f"{given}: loss={loss} {why}, so the parts of a batch do not add up to its gradient. Type {typed}; "
            f"trainer.batch_size={max(1, size // parts)} takes as little memory."
        )


def limit(optimizer: Optimizer, objective: Objective, split: object, found: Sequence[Mapping[str, Any]]) -> Memory:
    """Have an optimizer cut batches as was `found` before, and watch for more."""
    if not isinstance(optimizer, Descent):
        return Memory(found=found)
    before = optimizer.memory
    memory = optimizer.memory = Memory(before.size, auto=before.auto, found=found)
    # the shapes of other batches are tried before training
    if memory.auto and (hasattr(split, "lengths") or isinstance(split, LoaderSplit | StreamSplit)):
        memory.watch(objective)
    return memory


def first_step(optimizer: Optimizer, objective: Objective, batch: Batch) -> None:
    """Take a step, in ever smaller parts of the batch if the memory is too small."""
    while True:
        try:
            optimizer.step(objective, batch, optimizer.lr)
            return
        except TooLarge as error:
            error.halve(0)
