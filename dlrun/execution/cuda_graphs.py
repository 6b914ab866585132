"""Steps as CUDA graphs: one call launches a block of them, and the processor is free meanwhile.

A graph repeats the kernels of the steps that were recorded, on the same memory. So the batches and rates of a block
are copied into tensors of the graph's own; weights, buffers and the rule's state change in place. One graph takes a
whole block, another a single step, for what a block lacks at a logging, evaluation or checkpoint step. The totals of
a validation batch are a graph too (`GraphedTotals`).

No GPU has run this yet: the tests on a CPU take the recorded steps again in the place of `record`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from math import gcd

import torch
from torch import Tensor

from dlrun.engine.forward.totals import Total
from dlrun.engine.protocols import Rate, Steppable, TotalsFn
from dlrun.engine.steppers import EagerStepper, blocks
from dlrun.execution.snapshots import agree, assign, preserve
from dlrun.terminal import output
from dlrun.types import Batch, Update

LARGEST = 32
"""Steps in a graph, at most: recording takes time for each."""
WARM_UP = 3
"""Steps before one is recorded: libraries choose their kernels and allocate in them."""
CALM = 1e-3
"""The highest rate of the steps that are recorded and compared: at this one nothing diverges."""
EAGER_CHUNKS = 20
"""Validation chunks before one is recorded, which takes as long as some of them."""


def steps_per_graph(run: Steppable) -> int:
    """The largest common divisor up to 32 of all intervals.

    It is 10 if the divisor is below 5.

    >>> from types import SimpleNamespace as Run
    >>> from dlrun.engine.plan import Plan
    >>> [steps_per_graph(Run(plan=Plan(6000, 600, log_every=log, evaluate_every=600))) for log in (50, 7, 64)]
    [25, 10, 8]
    """
    common = gcd(run.plan.log_every, run.plan.evaluate_every, run.plan.checkpoint_every or 0)
    most = max(d for d in range(1, LARGEST + 1) if common % d == 0)
    # graphs of so few steps save little: single steps then take what is left of an interval
    return most if most >= 5 else 10


def record(compute: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
    """Record `compute` as a CUDA graph, without computing it.

    Returns a replay function, and the outputs that it writes.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with (
        # a recording that fails leaves its own stream the current one
        torch.cuda.stream(torch.cuda.current_stream(device)),
        # other threads go on meanwhile, such as one that waits for the copy of a checkpoint
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        outputs = compute()
    return graph.replay, outputs


def warm_up(compute: Callable[[], object], device: torch.device) -> None:
    """Call `compute` on a side stream, as recording demands.

    Raises RuntimeError if it draws random numbers.
    """
    before = torch.cuda.get_rng_state(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            compute()
    torch.cuda.current_stream(device).wait_stream(stream)
    if not torch.equal(before, torch.cuda.get_rng_state(device)):
        raise RuntimeError("it draws random numbers by the step's key, which a graph does not know")


class StepGraph:
    """A recorded sequence of steps, with memory of its own."""

    def __init__(self, run: Steppable, batch: Batch, rates: Tensor) -> None:
        self._run = run
        self._batches = [batch.map(torch.clone) for _ in rates]
        self._inputs = [t for each in self._batches for t in each]
        self._rates = rates.clone()
        self._replay, self._outputs = record(self._steps, run.device)

    def _steps(self) -> list[Tensor]:
        """The steps' losses [K], and norms and weights [K] if they have them."""
        pairs = zip(self._batches, self._rates.unbind(), strict=True)
        updates = [self._run.step(batch, rate) for batch, rate in pairs]
        fields = list(zip(*updates, strict=True))
        self._present = [values[0] is not None for values in fields]
        return [torch.stack(values) for values in fields if values[0] is not None]

    def __call__(self, block: Sequence[Batch], rates: Tensor) -> list[Update]:
        """Take the steps of a block, without waiting for them.

        The rates are [K], of a stack [K, R].
        """
        torch._foreach_copy_(self._inputs, [t for batch in block for t in batch], non_blocking=True)
        self._rates.copy_(rates, non_blocking=True)
        self._replay()
        # the next replay writes over the outputs
        values = (each.clone().unbind() for each in self._outputs)
        fields = [next(values) if there else [None] * len(block) for there in self._present]
        return [Update(*each) for each in zip(*fields, strict=True)]


class CudaGraphStepper:
    """Takes blocks of steps by CUDA graphs.

    `batch` is an example, `state` are all tensors that a step changes in place. Batches of another size are taken one
    by one.
    """

    def __init__(self, run: Steppable, batch: Batch, state: Sequence[Tensor]) -> None:
        self._run, self._eager, self._most = run, EagerStepper(run), steps_per_graph(run)
        self._shapes = (batch.x.shape, batch.y.shape)
        # not the rate of the first step, which may be 0 in a warm-up: nothing would change to be compared
        lr = torch.as_tensor(run.optimizer.lr, device=run.device).clamp(max=CALM)
        with preserve(state):
            warm_up(lambda: run.step(batch, lr), run.device)
            self._graphs = {n: StepGraph(run, batch, lr.expand(n, *lr.shape)) for n in {1, self._most}}
            self._check(batch, lr, state)

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return blocks(self._run, step, self._most)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        rates = self._rates(step, len(block))
        fits = [(x.shape, y.shape) == self._shapes for x, y in block]
        if len(block) in self._graphs and all(fits):
            return self._graphs[len(block)](block, rates)
        updates: list[Update] = []
        for i, (batch, rate) in enumerate(zip(block, torch.split(rates, 1), strict=True)):
            updates += self._graphs[1]([batch], rate) if fits[i] else self._eager.take(step + i, [batch])
        return updates

    def _rates(self, step: int, count: int) -> Tensor:
        """The rates of `count` steps, [K] or [K, R]."""
        rates: list[Rate] = [self._run.rate(s) for s in range(step, step + count)]
        if isinstance(rates[0], Tensor):  # of a stack
            return torch.stack(rates)  # type: ignore[arg-type]  # all are tensors then
        values = torch.tensor(rates)  # a copy from pinned memory is not waited for
        return values.pin_memory() if self._run.device.type == "cuda" else values

    def _check(self, batch: Batch, lr: Tensor, state: Sequence[Tensor]) -> None:
        """Raise RuntimeError if a graph and its steps differ."""
        before = [t.detach().clone() for t in state]
        for _ in range(self._most):
            self._run.step(batch, lr)
        expected = [t.detach().clone() for t in state]
        assign(state, before)
        self._graphs[self._most]([batch] * self._most, lr.expand(self._most, *lr.shape))
        n = len(self._run.objective.params)  # whose changes are small beside those of the rule's state
        if not (agree(before[:n], expected[:n], state[:n]) and agree(before[n:], expected[n:], state[n:])):
            raise RuntimeError("the graph does not compute what the steps do")


class GraphedTotals:
    """The totals of validation chunks, by a CUDA graph.

    It is recorded after `EAGER_CHUNKS` of them. Weights change in place, so that one graph serves all validations. The
    next chunk's totals are written over these: add them up before.
    """

    def __init__(self, totals_fn: TotalsFn, device: torch.device) -> None:
        self._totals_fn, self._device = totals_fn, device
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._seen = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, batch: Batch) -> Mapping[str, Total]:
        shapes = (batch.x.shape, batch.y.shape)
        self._shapes = self._shapes or shapes  # those of the first chunk: the last may be smaller
        if shapes != self._shapes:
            return self._totals_fn(batch)
        self._seen += 1
        if self._seen == EAGER_CHUNKS:
            self._record(batch)
        if self._replay is None:
            return self._totals_fn(batch)
        torch._foreach_copy_([*self._batch], [*batch], non_blocking=True)
        self._replay()
        return self._totals

    def _record(self, batch: Batch) -> None:
        self._batch = batch.map(torch.clone)
        try:
            warm_up(self._flat, self._device)
            expected = self._flat()
            replay, outputs = record(self._flat, self._device)
            replay()
            if not all(map(_close, outputs, expected)):
                raise RuntimeError("the graph does not compute what the calls do")
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            output.warn(f"The validation split is evaluated by calls, not by a CUDA graph: {why}")
            return
        self._replay = replay
        self._totals = dict(zip(self._names, zip(outputs[::2], outputs[1::2], strict=True), strict=True))

    def _flat(self) -> list[Tensor]:
        """Sums and counts in turn, all as tensors."""
        totals = self._totals_fn(self._batch)
        self._names = [*totals]
        pairs = ((s, n if isinstance(n, Tensor) else s.new_full((), n)) for s, n in totals.values())
        return [t for pair in pairs for t in pair]


def maybe_graphed(totals_fn: TotalsFn, *, device: torch.device) -> TotalsFn:
    """`totals_fn`, on a GPU as a CUDA graph."""
    return GraphedTotals(totals_fn, device) if device.type == "cuda" else totals_fn


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)
