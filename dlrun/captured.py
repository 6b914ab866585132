"""Steps as CUDA graphs: a block of them is launched by one call, and the processor has nothing to do meanwhile.

A graph repeats the very kernels of the steps that were recorded, on the same memory. So the batches and the rates of a
block are copied into tensors of the graph's own; weights, buffers and the rule's state it changes in place. One graph
takes a whole block; what a block lacks at a point where the loop looks up is taken by the graph of a single step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.stepping import Eager, blocks, rate
from dlrun.tensors import agree, put, put_back
from dlrun.types import Batch, Update

if TYPE_CHECKING:
    from dlrun.loop import Training

LARGEST = 32
"""Steps in a graph, at most: recording takes time for each."""
WARM_UP = 3
"""Steps that are taken before one is recorded: libraries choose their kernels and allocate in them."""


def block_of(run: Training) -> int:
    """Return how many steps a graph takes: as many as divide the intervals at which the loop looks up, if that is some.

    >>> from types import SimpleNamespace as Run
    >>> from dlrun.plan import Plan
    >>> [block_of(Run(plan=Plan(6000, 600, log_every=log, evaluate_every=600))) for log in (50, 7, 64)]
    [25, 10, 8]
    """
    common = gcd(run.plan.log_every, run.plan.evaluate_every, run.plan.checkpoint_every or 0)
    most = max(d for d in range(1, LARGEST + 1) if common % d == 0)
    return most if most >= 5 else 10


class Graph:
    """One recorded sequence of steps, with the memory that it reads and writes."""

    def __init__(self, run: Training, batch: Batch, steps: int) -> None:
        self._batches = [Batch(batch.x.clone(), batch.y.clone()) for _ in range(steps)]
        self._inputs = [t for each in self._batches for t in each]
        self._rates = torch.zeros(steps, device=run.device)
        self._replay, self._found = recorded(lambda: self._steps(run))

    def _steps(self, run: Training) -> list[Tensor]:
        """Take the steps; return their losses and, where it is measured, the norms of the gradients."""
        given = zip(self._batches, self._rates.unbind(), strict=True)
        updates = [run.optimizer.step(run.objective, batch, lr) for batch, lr in given]  # type: ignore[arg-type]
        norms = [u.grad_norm for u in updates if u.grad_norm is not None]
        return [torch.stack(values) for values in ([u.loss for u in updates], norms) if values]

    def __call__(self, block: Sequence[Batch], rates: Tensor) -> list[Update]:
        """Take the steps on these batches; nothing is waited for."""
        torch._foreach_copy_(self._inputs, [t for batch in block for t in batch], non_blocking=True)
        self._rates.copy_(rates, non_blocking=True)
        self._replay()
        # the next replay writes over them
        losses, *norms = (values.clone().unbind() for values in self._found)
        return [Update(*pair) for pair in zip(losses, norms[0] if norms else [None] * len(losses), strict=True)]


def recorded(steps: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """Return what repeats `steps`, and where their results are found then; they are not taken now."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = steps()
    return graph.replay, found


class Captured:
    """Every block a launch of a graph; batches of another size are taken as they are."""

    def __init__(self, run: Training, batch: Batch, state: Sequence[Tensor]) -> None:
        self._run, self._eager, self._most = run, Eager(run), block_of(run)
        self._shapes = (batch.x.shape, batch.y.shape)
        with put_back(state):
            warm_up(run, batch)
            self._graphs = {n: Graph(run, batch, n) for n in {1, self._most}}
            self._check(batch, state)

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the plan's blocks of batches."""
        return blocks(self._run, step, self._most)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch."""
        if any((x.shape, y.shape) != self._shapes for x, y in block):
            return self._eager.take(step, block)
        rates = torch.tensor([rate(self._run, s) for s in range(step, step + len(block))])
        rates = rates.pin_memory() if self._run.device.type == "cuda" else rates
        if len(block) in self._graphs:
            return self._graphs[len(block)](block, rates)
        singly = zip(block, torch.split(rates, 1), strict=True)
        return [update for batch, lr in singly for update in self._graphs[1]([batch], lr)]

    def _check(self, batch: Batch, state: Sequence[Tensor]) -> None:
        """Raise RuntimeError unless a block's graph computes what its steps do."""
        before = [t.detach().clone() for t in state]
        lr = torch.tensor(self._run.optimizer.lr, device=self._run.device)
        for _ in range(self._most):
            self._run.optimizer.step(self._run.objective, batch, lr)  # type: ignore[arg-type]
        expected = [t.detach().clone() for t in state]
        put(state, before)
        self._graphs[self._most]([batch] * self._most, lr.expand(self._most))
        n = len(self._run.objective.params)
        if not (agree(before[:n], expected[:n], state[:n]) and agree(before[n:], expected[n:], state[n:])):
            raise RuntimeError("the graph does not compute what the steps do")


def warm_up(run: Training, batch: Batch) -> None:
    """Take some steps beside the main stream, as recording demands."""
    before = torch.cuda.get_rng_state(run.device)
    lr = torch.tensor(run.optimizer.lr, device=run.device)
    stream = torch.cuda.Stream(run.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(run.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run.optimizer.step(run.objective, batch, lr)  # type: ignore[arg-type]
    torch.cuda.current_stream(run.device).wait_stream(stream)
    if not torch.equal(before, torch.cuda.get_rng_state(run.device)):
        raise RuntimeError("a step draws random numbers, by its key, which a graph does not know")
