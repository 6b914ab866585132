"""What fits into the memory: found as it runs out, remembered, and repeated by a run that is resumed.

A batch is cut into parts, one after another, with the gradient of the whole. An evaluation takes fewer samples at
once; its averages are exact for any number.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlrun.engine.failures.explaining import is_out_of_memory
from dlrun.metrics import is_of_batch
from dlrun.nests.nest import is_nest
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import Batch

T = TypeVar("T")

EVALUATION = "evaluation"
"""In place of a sample's shape: what is evaluated at once."""


class Objective(Protocol):
    """An `engine.objective.Objective`, as far as a batch's parts depend on it."""

    model: nn.Module
    loss: Any
    modules: list[nn.Module]

    def buffers(self) -> Iterator[Tensor]:
        """The buffers of model and loss."""

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of the model's precision."""


@dataclass(frozen=True)
class Found:
    """The most samples of a shape to take at once, from a step on."""

    shape: str
    step: int
    samples: int


class TooLarge(Exception):
    """The memory is too small for the gradient of a batch; nothing has been updated by it."""

    def __init__(self, memory: Memory, objective: Objective, batch: Batch) -> None:
        super().__init__()
        self._memory, self._objective, self._batch = memory, objective, batch

    def halve(self, step: int) -> None:
        """Have the batch taken in smaller parts from this step on.

        Raises the exception behind it if it cannot be.
        """
        cause = self.__cause__
        assert cause is not None
        # the frames of the failed step hold its activations
        free(self)
        whole = why_whole(self._objective, self._batch)
        why = f"the loss {whole}" if whole else self._memory.halve(self._objective, self._batch, step)
        if why is not None:
            cause.add_note(f"The batch was not cut into parts: {why}")
            raise cause


class Memory:
    """What a run has found to fit.

    `size` are the samples of a part of a batch, if they are given; with `auto` they are found. Both hold for gradients
    that are computed batch by batch.
    """

    def __init__(self, size: int | None = None, *, auto: bool = False, found: Iterable[Mapping[str, Any]] = ()) -> None:
        self.size, self.auto = size, auto
        self.found = [Found(str(each["shape"]), int(each["step"]), int(each["samples"])) for each in found]
        self.keep: Callable[[list[dict[str, Any]]], None] = lambda _: None
        """Called with all that was found when there is more of it."""
        self.look: Callable[[Batch, int], int] | None = self.parts if self.found or size is not None else None
        """`parts`, as soon as a batch is to be looked at before its step."""
        self._step = 0
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._seen: set[str] | None = None
        self._objective: Objective | None = None

    def watch(self, objective: Objective) -> None:
        """Keep the buffers before the first step of each shape, for batches whose shapes differ."""
        if any(True for _ in objective.buffers()):
            self._objective, self._seen, self.look = objective, set(), self.parts

    @property
    def later(self) -> bool:
        """Does anything hold from a later step than the first one on?"""
        return any(each.step and each.shape != EVALUATION for each in self.found)

    def reach(self, step: int) -> None:
        """Have hold what was found up to a step."""
        self._step = step

    def parts(self, batch: Batch, least: int) -> int:
        """The parts of a batch, at least so many."""
        shape = shape_of(batch)
        if self._seen is not None and shape not in self._seen:
            assert self._objective is not None
            self._seen.add(shape)
            self._buffers = [(buffer, buffer.clone()) for buffer in self._objective.buffers()]
        most = self._most(shape, self._step) or self.size
        return least if most is None else max(least, ceil(batch.size / most))

    def evaluated(self, samples: int, step: int) -> int:
        """The samples to evaluate at once after a step, at most `samples`."""
        return min(samples, self._most(EVALUATION, step) or samples)

    def halve(self, objective: Objective, batch: Batch, step: int) -> str | None:
        """Halve the parts of a batch; returns why they cannot be."""
        parts = self.parts(batch, 1)
        held = ceil(batch.size / parts)
        if held == 1:
            return "one sample alone is too much for the memory"
        for buffer, before in self._buffers:
            buffer.copy_(before)
        samples = ceil(held / 2)
        self._step = max(self._step, step)
        self._add(Found(shape_of(batch), step, samples))
        inexact = _inexact(objective)
        output.warn(
            f"The memory is too small for a step on {counted(held, 'sample')}: from step {step + 1} on they are taken "
            f"{samples} at a time, with the gradient of the whole batch{inexact}. trainer.micro_batch={samples} takes "
            "them so from the start."
        )
        return None

    def halve_evaluation(self, samples: int, step: int) -> None:
        """Have an evaluation take half as many samples at once."""
        half = ceil(samples / 2)
        self._add(Found(EVALUATION, step, half))
        output.warn(
            f"The memory is too small to evaluate {counted(samples, 'sample')} at once: they are evaluated {half} at a "
            f"time, with the same averages. evaluation.batch_size={half} does so from the start."
        )

    def to_list(self) -> list[dict[str, Any]]:
        """All that was found, for the summary."""
        return [asdict(each) for each in self.found]

    def _add(self, found: Found) -> None:
        self.found.append(found)
        self.look = self.parts
        # before the step is taken: a run that is killed after it repeats it
        self.keep(self.to_list())

    def _most(self, shape: str, step: int) -> int | None:
        holding = [each.samples for each in self.found if each.shape == shape and each.step <= step]
        return min(holding, default=None)


def shape_of(batch: Batch) -> str:
    """The shapes of a sample's tensors, as a word.

    >>> shape_of(Batch(torch.zeros(8, 3, 32, 32), torch.zeros(8)))
    '3x32x32 1'
    """
    return " ".join("x".join(map(str, t.shape[1:])) or "1" for t in batch.tensors())


def why_whole(objective: Objective, batch: Batch) -> str | None:
    """What the loss does so that the gradients of a batch's parts do not add up to its gradient; None if they do."""
    if batch.weight is not None or batch.mask is not None:
        return "has weights"
    if is_nest(batch.y):
        return "has several targets"
    if is_of_batch(objective.loss):
        return "compares samples of a batch"
    with torch.no_grad(), objective.precision():
        training = [(each, each.training) for module in objective.modules for each in module.modules()]
        try:
            for module in objective.modules:
                module.eval()
            weighted = isinstance(objective.loss(objective.model, batch.rows(slice(2))), tuple)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # two samples are too many: then the parts have one each
            weighted = False
        finally:
            for each, mode in training:
                each.training = mode
    return "has weights" if weighted else None


def _inexact(objective: Objective) -> str:
    norms = (m for part in objective.modules for m in part.modules() if isinstance(m, _BatchNorm) and m.training)
    name = next((type(norm).__name__ for norm in norms), None)
    # of a mean over all samples the parts have means of their own
    return f", but for {name}, which takes its statistics from each part" if name else ""


def free(error: BaseException) -> None:
    """Give back the memory that the frames of a failed computation hold."""
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def evaluate_fitting(
    evaluate: Callable[[int], T], memory: Memory, samples: int, *, step: int, divisible: bool = True
) -> T:
    """`evaluate` with so many samples at once, or with fewer if the memory is too small for them.

    Only if it is `divisible`: its values are those of any number.
    """
    while True:
        size = memory.evaluated(samples, step)
        try:
            return evaluate(size)
        except Exception as error:
            if size == 1 or not divisible or not is_out_of_memory(error):
                raise
            free(error)
        memory.halve_evaluation(size, step)
