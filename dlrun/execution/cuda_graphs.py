"""Steps as CUDA graphs: a block of them is launched by one call, and the processor has nothing to do meanwhile.

A graph repeats the very kernels of the steps that were recorded, on the same memory. So the batches and the rates of a
block are copied into tensors of the graph's own; weights, buffers and the rule's state it changes in place. One graph
takes a whole block; what a block lacks at a point where the loop looks up is taken by the graph of a single step.
What is asked of the portions of a validation split is a graph too (`Repeated`).

No GPU has run this yet: on the CPU it is tested with steps that are taken again in the place of `recorded` ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.engine.steppers import Eager, blocks, rate
from dlrun.execution.snapshots import agree, put, put_back
from dlrun.terminal import output
from dlrun.types import Batch, Update

if TYPE_CHECKING:
    from dlrun.engine.loop import Trained

Asked = Callable[[Batch], Mapping[str, tuple[Tensor, int | Tensor]]]
"""What finds of a portion of a split the sum and the count of the loss and of each metric."""

LARGEST = 32
"""Steps in a graph, at most: recording takes time for each."""
WARM_UP = 3
"""Steps that are taken before one is recorded: libraries choose their kernels and allocate in them."""
CALM = 1e-3
"""The rate up to which steps are taken to be recorded and compared: one at which nothing diverges."""
PORTIONS = 20
"""Portions that are evaluated as they are before one is recorded, which takes as long as some of them."""


def block_of(run: Trained) -> int:
    """Return how many steps a graph takes: as many as divide the intervals at which the loop looks up, if that is some.

    >>> from types import SimpleNamespace as Run
    >>> from dlrun.engine.plan import Plan
    >>> [block_of(Run(plan=Plan(6000, 600, log_every=log, evaluate_every=600))) for log in (50, 7, 64)]
    [25, 10, 8]
    """
    common = gcd(run.plan.log_every, run.plan.evaluate_every, run.plan.checkpoint_every or 0)
    most = max(d for d in range(1, LARGEST + 1) if common % d == 0)
    return most if most >= 5 else 10


class Graph:
    """One recorded sequence of steps, with the memory that it reads and writes."""

    def __init__(self, run: Trained, batch: Batch, rates: Tensor) -> None:
        self._batches = [Batch(batch.x.clone(), batch.y.clone()) for _ in rates]
        self._inputs = [t for each in self._batches for t in each]
        self._rates = rates.clone()
        self._replay, self._found = recorded(lambda: self._steps(run), run.device)

    def _steps(self, run: Trained) -> list[Tensor]:
        """Take the steps; return their losses and, where it is measured, the norms of the gradients."""
        given = zip(self._batches, self._rates.unbind(), strict=True)
        updates = [run.optimizer.step(run.objective, batch, lr) for batch, lr in given]
        norms = [u.grad_norm for u in updates if u.grad_norm is not None]
        return [torch.stack(values) for values in ([u.loss for u in updates], norms) if values]

    def __call__(self, block: Sequence[Batch], rates: Tensor) -> list[Update]:
        """Take the steps on these batches at the rates [K], of an ensemble [K, R]; nothing is waited for."""
        torch._foreach_copy_(self._inputs, [t for batch in block for t in batch], non_blocking=True)
        self._rates.copy_(rates, non_blocking=True)
        self._replay()
        # the next replay writes over them
        losses, *norms = (values.clone().unbind() for values in self._found)
        return [Update(*pair) for pair in zip(losses, norms[0] if norms else [None] * len(losses), strict=True)]


def recorded(steps: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
    """Return what repeats `steps`, and where their results are found then; they are not taken now."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with (
        # a recording that fails leaves its own stream the current one
        torch.cuda.stream(torch.cuda.current_stream(device)),
        # what other threads do meanwhile, such as waiting for the copy of a checkpoint, is no part of it
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        found = steps()
    return graph.replay, found


class Captured:
    """Every block of a run, or of an ensemble, a launch of a graph; batches of another size are taken as they are."""

    def __init__(self, run: Trained, batch: Batch, state: Sequence[Tensor]) -> None:
        self._run, self._eager, self._most = run, Eager(run), block_of(run)
        self._shapes = (batch.x.shape, batch.y.shape)
        lr = torch.as_tensor(run.optimizer.lr, device=run.device).clamp(max=CALM)
        with put_back(state):
            warm_up(lambda: run.optimizer.step(run.objective, batch, lr), run.device)
            self._graphs = {n: Graph(run, batch, lr.expand(n, *lr.shape)) for n in {1, self._most}}
            self._check(batch, lr, state)

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the plan's blocks of batches."""
        return blocks(self._run, step, self._most)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch."""
        rates = self._rates(step, len(block))
        fits = [(x.shape, y.shape) == self._shapes for x, y in block]
        if len(block) in self._graphs and all(fits):
            return self._graphs[len(block)](block, rates)
        found: list[Update] = []
        for i, (batch, lr) in enumerate(zip(block, torch.split(rates, 1), strict=True)):
            found += self._graphs[1]([batch], lr) if fits[i] else self._eager.take(step + i, [batch])
        return found

    def _rates(self, step: int, count: int) -> Tensor:
        """Return the rates of steps, [K] on the host, of an ensemble [K, R] where it has them."""
        values = [rate(self._run, s) for s in range(step, step + count)]
        if isinstance(values[0], Tensor):
            return torch.stack(values)
        rates = torch.tensor(values)
        return rates.pin_memory() if self._run.device.type == "cuda" else rates

    def _check(self, batch: Batch, lr: Tensor, state: Sequence[Tensor]) -> None:
        """Raise RuntimeError unless a block's graph computes what its steps do."""
        before = [t.detach().clone() for t in state]
        for _ in range(self._most):
            self._run.optimizer.step(self._run.objective, batch, lr)
        expected = [t.detach().clone() for t in state]
        put(state, before)
        self._graphs[self._most]([batch] * self._most, lr.expand(self._most, *lr.shape))
        n = len(self._run.objective.params)
        if not (agree(before[:n], expected[:n], state[:n]) and agree(before[n:], expected[n:], state[n:])):
            raise RuntimeError("the graph does not compute what the steps do")


class Repeated:
    """What is asked of each portion of a split, by a graph from some portions on; of a smaller one as it is.

    Weights change in place, so that one graph serves all validations. What it finds the next portion writes over: add
    it up before.
    """

    def __init__(self, asked: Asked, device: torch.device) -> None:
        self._asked, self._device = asked, device
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._seen = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, batch: Batch) -> Mapping[str, tuple[Tensor, int | Tensor]]:
        """Return the sums and counts of a portion."""
        shapes = (batch.x.shape, batch.y.shape)
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            return self._asked(batch)
        self._seen += 1
        if self._seen == PORTIONS:
            self._record(batch)
        if self._replay is None:
            return self._asked(batch)
        torch._foreach_copy_([*self._batch], [*batch], non_blocking=True)
        self._replay()
        return self._found

    def _record(self, batch: Batch) -> None:
        self._batch = Batch(batch.x.clone(), batch.y.clone())
        try:
            warm_up(self._flat, self._device)
            expected = self._flat()
            replay, found = recorded(self._flat, self._device)
            replay()
            if not all(map(_close, found, expected)):
                raise RuntimeError("the graph does not find what was asked for")
        except Exception as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            output.warn(f"The validation split is evaluated by calls, not by a CUDA graph: {told}")
            return
        self._replay, self._found = (
            replay,
            dict(zip(self._names, zip(found[::2], found[1::2], strict=True), strict=True)),
        )

    def _flat(self) -> list[Tensor]:
        """Return sums and counts by turns, as tensors."""
        found = self._asked(self._batch)
        self._names = [*found]
        pairs = ((s, n if isinstance(n, Tensor) else s.new_full((), n)) for s, n in found.values())
        return [t for pair in pairs for t in pair]


def asking(asked: Asked, *, compile: bool, device: torch.device) -> Asked:
    """Return `asked` by a graph where the steps are graphs, which is on a GPU; elsewhere `asked` itself."""
    return Repeated(asked, device) if compile and device.type == "cuda" else asked


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def warm_up(work: Callable[[], object], device: torch.device) -> None:
    """Do what is to be recorded some times beside the main stream, as recording demands.

    Raises RuntimeError if it draws random numbers.
    """
    before = torch.cuda.get_rng_state(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    if not torch.equal(before, torch.cuda.get_rng_state(device)):
        raise RuntimeError("it draws random numbers, by the step's key, which a graph does not know")
