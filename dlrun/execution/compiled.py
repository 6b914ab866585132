"""A step as one compiled program: forward, backward, clipping and the rule, fused by TorchInductor.

Most of a tiny model's step is not arithmetic but the calling of operators, a few microseconds each. The program is
made from the very step that the loop would take: it is traced (`make_fx`) while it is taken once, on the run's own
tensors, which are then put back. The rate is an input, so that one program serves all steps. It is compared with the
step that it was made from. Where anything is in the way, steps are taken one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dlrun.engine.batches import LoaderSplit
from dlrun.engine.forward.recomputing import recomputing
from dlrun.engine.protocols import Steppable, Stepper
from dlrun.engine.steppers import EagerStepper, RecompilingStepper, blocks
from dlrun.execution.cuda_graphs import CudaGraphStepper
from dlrun.execution.snapshots import agree, assign, preserve
from dlrun.terminal import output
from dlrun.types import Batch, Update

BLOCK = 32
"""Steps between two logging, evaluation or checkpoint steps that are taken at once, at most."""

AGAIN = 100
"""Steps that take about as long as recording a block as a CUDA graph."""

SMALL = 4096
"""Multiplications of a matrix product up to which it is cheaper fused with its neighbours than called for itself."""

EMBEDDED = torch.ops.aten.embedding_dense_backward.default
"""The gradient of an embedding, whose kernel gives the same bits on any number of threads."""


class Unsuited(Exception):
    """The steps of a run cannot be one program."""


@runtime_checkable
class TensorRule(Protocol):
    """A rule with a tensor rate and in-place state."""

    def tensors(self) -> list[Tensor]:
        """The tensors of the state, always the same objects."""


def make_stepper(run: Steppable) -> Stepper:
    """A compiled stepper, or CUDA graphs on a GPU.

    If a step cannot be one program, steps are taken one by one, with a warning. When runs leave a stack, CUDA graphs
    are recorded again of the others. A CPU's program is not made again, which takes seconds.
    """
    first = _stepper(run)
    return RecompilingStepper(run, _stepper, first=first, after=AGAIN) if isinstance(first, CudaGraphStepper) else first


def _stepper(run: Steppable) -> Stepper:
    try:
        if (why := why_not(run)) is not None:
            raise Unsuited(why)
        with _guard_attributes(run.objective.modules):
            if run.device.type == "cuda":
                return CudaGraphStepper(run, example_batch(run), step_state(run))
            return CompiledStepper(run)
    except Exception as error:  # whatever tracing and compiling raise
        why = str(error) if isinstance(error, Unsuited) else f"{type(error).__name__}: {error}".splitlines()[0]
        output.warn(f"The steps are taken one by one, not as a compiled program: {why}")
        return EagerStepper(run)


@contextmanager
def _guard_attributes(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Raise `Unsuited` if numbers or text of modules change.

    They are restored. A number that is no tensor would stay in the program as it was when the program was made.
    """
    modules = [module for part in parts for module in part.modules()]
    before = [_plain(module) for module in modules]
    yield
    after = [_plain(module) for module in modules]
    for module, values, now in zip(modules, before, after, strict=True):
        for name in now.keys() - values.keys():
            delattr(module, name)
        vars(module).update(values)
    if after != before:
        raise Unsuited("the model changes a value of its own in each step, which a program does not know")


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}


def why_not(run: Steppable) -> str | None:
    """A reason known beforehand against one program for the steps."""
    if run.device.type not in ("cpu", "cuda"):
        return f"a program for the device {run.device.type} is not known to be right"
    rule = _rule(run)
    if not isinstance(rule, TensorRule):
        return f"{type(rule).__name__} has no form in which the rate is a tensor (SGD and Adam have)"
    if getattr(run, "guard", None):
        return "steps may be left out (trainer.on_spike)"
    if getattr(run, "thaw", None):
        return "parts that are frozen begin to train (finetune.unfreeze)"
    if getattr(rule, "dampening", 0.0):
        return "with dampening the first step is another than the rest"
    if any(p.is_complex() for p in run.objective.params):
        return "TorchInductor makes no programs of complex weights"
    if run.average and run.device.type == "cuda":
        return "the average's decay is another in each step (trainer.ema)"
    split = getattr(run.batches, "split", None)
    if isinstance(split, LoaderSplit):
        return "its samples are read by workers, and most of its time is theirs"
    if split is not None and not split.gather(torch.zeros(1, dtype=torch.long, device=run.device)).plain:
        return "its samples are several tensors, or have weights"
    if any(recomputing(part) for part in run.objective.modules):
        return "activations are computed again in the backward pass, and a program would keep them"
    if run.own and (why := run.own.why_not_one_program()):
        return why
    modules = (module for part in run.objective.modules for module in part.modules())
    if dropout := next((m for m in modules if isinstance(m, nn.modules.dropout._DropoutNd) and m.p), None):
        return f"{type(dropout).__name__} draws its masks by the step's key, which a program does not know"
    return None


def _rule(run: Steppable) -> object:
    return getattr(run.optimizer, "rule", run.optimizer)


def step_state(run: Steppable) -> list[Tensor]:
    """Weights, buffers and the rule's state, in this order."""
    rule = _rule(run)
    assert isinstance(rule, TensorRule)  # `why_not` comes first
    return [*run.objective.params, *run.objective.buffers(), *rule.tensors()]


def example_batch(run: Steppable) -> Batch:
    """A batch as a step sees it."""
    batch = next(run.batches.start(0))
    return Batch(batch.x.contiguous(), batch.y.contiguous())


class CompiledStepper:
    """Takes each step by one call of a program."""

    def __init__(self, run: Steppable) -> None:
        self._run, self._eager = run, EagerStepper(run)
        batch = example_batch(run)
        self._shapes = (batch.x.shape, batch.y.shape)
        self._call, self._places = compile_step(run, batch)
        self._state = [t.detach() for t in step_state(run)]

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return blocks(self._run, step, BLOCK)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        steps = range(step, step + len(block))
        values: list[Any] = [self._run.rate(s) for s in steps]
        # those of a stack are tensors, a rate for each run; float64 as the Python floats of eager steps
        rates: Sequence[Tensor] = (
            values if isinstance(values[0], Tensor) else torch.tensor(values, dtype=torch.float64).unbind()
        )
        return [self._step(*each) for each in zip(steps, block, rates, strict=True)]

    def _step(self, step: int, batch: Batch, rate: Tensor) -> Update:
        x, y = batch
        if (x.shape, y.shape) != self._shapes:  # such as the last batch of an epoch
            return self._eager.take(step, [batch])[0]
        # a new list for each call: the program empties it
        outputs = self._call([*self._state, x.contiguous(), y.contiguous(), rate])
        if self._run.average:
            self._run.average.update(step + 1)
        return Update(outputs[0], *[None if place is None else outputs[place] for place in self._places])


def compile_step(run: Steppable, batch: Batch) -> tuple[Callable[[list[Tensor]], Sequence[Tensor]], list[int | None]]:
    """Compile a step, a function of [*state, x, y, rate].

    Returns beside it the places of an `Update`'s norm and weight among its outputs, None if there is none. The run is
    left as it was. Raises `Unsuited`, or any error of tracing and compiling.
    """
    state = step_state(run)
    inputs = [*state, *batch, torch.as_tensor(run.optimizer.lr, dtype=torch.float64)]
    with preserve(state), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [t.detach().clone() for t in state]
        graph, update = _trace(run, inputs)
        expected = [t.detach() for t in update if t is not None]
        after = [t.detach().clone() for t in state]
        assign(state, before)
        detached, constants = [t.detach() for t in inputs], _lift_constants(graph)
        lowered = _lower(graph, [*detached, *constants])

        def call(flat: list[Tensor]) -> Sequence[Tensor]:
            return lowered([*flat, *constants])

        outputs = call(detached)
        zeros = [torch.zeros_like(t) for t in expected]
        n = len(run.objective.params)  # whose changes are small beside those of the rule's state
        changed = agree(before[:n], after[:n], state[:n]) and agree(before[n:], after[n:], state[n:])
        if not (changed and agree(zeros, expected, outputs)):
            raise Unsuited("the program does not compute what the step does")
    present = iter(range(1, len(expected)))
    return call, [None if t is None else next(present) for t in update[1:]]


def _trace(run: Steppable, inputs: list[Tensor]) -> tuple[Any, Update]:
    """The graph of a step, and what it returned."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def step(*flat: Tensor) -> list[Tensor]:
        update = run.step(Batch(flat[-3], flat[-2]), flat[-1])
        updates.append(update)
        return [t for t in update if t is not None]

    updates: list[Update] = []
    graph = make_fx(step, decomposition_table=_products())(*inputs)
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not _without_dropout(node):
            raise Unsuited(f"{node.target} draws random numbers by the step's key, which a program does not know")
    return graph, updates[0]


def _lift_constants(graph: Any) -> list[Tensor]:
    """Turn a graph's constants into its last inputs; returns them.

    They are tensors of a stack: the momenta of the runs, their bounds of clipping.
    """
    nodes, held = graph.graph, list[Tensor]()
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    for name in dict.fromkeys(node.target for node in nodes.nodes if node.op == "get_attr"):
        with nodes.inserting_after(last):
            last = nodes.placeholder(f"held_{len(held)}")
        for node in [node for node in nodes.nodes if node.op == "get_attr" and node.target == name]:
            node.replace_all_uses_with(last)
            nodes.erase_node(node)
        held.append(getattr(graph, name).detach())
        delattr(graph, name)  # TorchInductor would lift what is left, in front of the other inputs
    graph.recompile()
    return held


def _without_dropout(node: Any) -> bool:
    """Is this a call with a dropout of 0?"""
    # as is attention in most models
    names = [argument.name for argument in node.target._schema.arguments]
    passed = dict(zip(names, node.args, strict=False)) | node.kwargs
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    return "dropout_p" in names and passed.get("dropout_p", defaults["dropout_p"]) == 0


def _lower(graph: Any, inputs: list[Tensor]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    from torch._inductor import config

    inner: list[Callable[[list[Tensor]], Sequence[Tensor]]] = []

    # importing these would start a pool of compiling processes: with one thread it does not
    with torch.no_grad(), config.patch(size_asserts=False, compile_threads=1):
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.lowering import make_fallback

        def keep(*args: Any, **named: Any) -> Any:
            # the general wrapper that compile_fx puts around this one takes as long as a tiny step
            inner.append(compile_fx_inner(*args, **named))
            return inner[-1]

        # decomposed into sums at places, an embedding's gradient would be added up by two threads in any order
        table = {op: how for op, how in select_decomp_table().items() if op is not EMBEDDED}
        # so its kernel is called; without this line Inductor refuses that where the environment has CI
        make_fallback(EMBEDDED, warn=False, override_decomp=True)  # type: ignore[no-untyped-call]
        compile_fx(graph, inputs, inner_compile=keep, decompositions=table)
    if len(inner) != 1:
        raise Unsuited(f"it became {len(inner)} programs, not one")
    return inner[0]


def _products() -> dict[Any, Callable[..., Any]]:
    """Decompositions of small matrix products into sums."""
    # sums are fused with their neighbours, a product is a call of its own

    def mm(a: Tensor, b: Tensor) -> Any:
        if a.shape[0] * a.shape[1] * b.shape[1] > SMALL:
            return NotImplemented
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
        if a.shape[0] * a.shape[1] * b.shape[1] > SMALL or (beta, alpha) != (1, 1):
            return NotImplemented
        return c + (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    return {torch.ops.aten.mm.default: mm, torch.ops.aten.addmm.default: addmm}
