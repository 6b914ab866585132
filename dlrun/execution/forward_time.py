"""The time of a forward pass against the size of its batch (Canziani et al. 2016, arXiv:1605.07678)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from math import ceil
from statistics import quantiles

import torch
from torch import Tensor, nn

from dlrun.engine.evaluation import evaluating
from dlrun.engine.objective import Objective
from dlrun.execution.device import autocast, wait_for
from dlrun.execution.flops import count_flops
from dlrun.types import Batch, Spec

FEWEST, MOST = 3, 25
"""Rounds: some for a median, and no more than change it."""
SHORT = 0.005
"""Seconds: shorter passes are timed several at a time, because of the clock."""
AS_WELL = 0.05
"""Seconds up to which a pass is first taken once untimed: another model's has left the caches cold."""


@dataclass(frozen=True)
class Subject:
    """A model on its device, and inputs [largest batch, ...]."""

    label: str
    model: nn.Module
    x: Tensor
    precision: str = "fp32"

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def flop(self) -> int:
        """FLOP of one sample's forward pass."""
        try:
            return self._flop_on("meta")  # where nothing is computed
        except (NotImplementedError, RuntimeError):  # a pass that depends on the numbers
            return self._flop_on(self.x.device)

    def _flop_on(self, device: torch.device | str) -> int:
        # of frozen weights the forward pass alone is counted
        model = copy.deepcopy(self.model).to(device).eval().requires_grad_(False)
        objective = Objective(model, lambda model, batch: model(batch.x).sum())
        x = self.x[:1].to(device)
        return count_flops(objective, Batch(x, x))


@dataclass
class Timed:
    """The seconds of a pass over `size` samples, a number for each round; none if it did not fit into memory."""

    subject: Subject
    size: int
    seconds: list[float] = field(default_factory=list)

    def per_sample(self) -> tuple[float, float, float]:
        """The median seconds of a sample, and the quartiles around it."""
        low, middle, high = (each / self.size for each in quantiles(self.seconds, method="inclusive"))
        return middle, low, high


def random_inputs(spec: Spec, samples: int) -> Tensor:
    """Inputs of a data set's sizes: normal numbers, or tokens."""
    draw = torch.Generator().manual_seed(0)
    shape = (samples, *spec.input_shape)
    if spec.task == "language":
        return torch.randint(spec.vocabulary or spec.outputs, shape, generator=draw)
    return torch.randn(shape, generator=draw)


def time_forward(
    subjects: Sequence[Subject],
    sizes: Sequence[int],
    *,
    seconds: float,
    on_round: Callable[[int], None] = lambda n: None,
) -> list[Timed]:
    """Time each model on each size of batch, in turns, until `seconds` are over.

    All cells are timed once in each round, the rounds in alternating order: what slows the machine for a while slows
    all of them.
    """
    began = time.perf_counter()
    cells = [Timed(subject, size) for subject, size in product(subjects, sizes)]
    # the first passes allocate
    passes = {id(cell): _passes(cell) for cell in cells}
    fitting = [cell for cell in cells if passes[id(cell)]]
    for n in range(MOST):
        if n >= FEWEST and time.perf_counter() - began > seconds:
            break
        on_round(n + 1)
        for cell in fitting[:: -1 if n % 2 else 1]:
            if cell.seconds and cell.seconds[-1] < AS_WELL:
                _time(cell, 1)
            cell.seconds.append(_time(cell, passes[id(cell)]))
    return cells


def _passes(cell: Timed) -> int:
    """How many passes to time at once; 0 if one does not fit into memory."""
    try:
        _time(cell, 1)
        return max(1, min(1000, ceil(SHORT / max(_time(cell, 1), 1e-9))))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 0


def _time(cell: Timed, passes: int) -> float:
    model, x = cell.subject.model, cell.subject.x[: cell.size]
    cast = autocast(x.device, cell.subject.precision)
    with evaluating(model), torch.autocast(*cast) if cast else nullcontext():
        wait_for(x.device)
        tic = time.perf_counter()
        for _ in range(passes):
            model(x)
        wait_for(x.device)
        return (time.perf_counter() - tic) / passes


def samples_word(shape: Sequence[int]) -> str:
    """The noun for a sample of this shape.

    >>> samples_word((3, 32, 32)), samples_word((64,))
    ('image', 'sample')
    """
    return "image" if len(shape) == 3 else "sample"
