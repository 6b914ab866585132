"""A step as one compiled program: forward, backward, clipping and the rule, fused by TorchInductor.

Of a tiny model's step most is not arithmetic but the calling of operators, a few microseconds each. The program is made
from the very step that the loop would take: it is traced (`make_fx`) while it is taken once, on the run's own tensors,
which are then put back. The rate is an input, so that one program serves all steps. It is compared with the step that
it was made from, and where anything is in the way the steps are taken one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlrun.engine.batches import Streamed
from dlrun.engine.steppers import Eager, Renewed, Stepping, blocks, rate
from dlrun.execution.cuda_graphs import Captured
from dlrun.execution.snapshots import agree, put, put_back
from dlrun.terminal import output
from dlrun.types import Batch, Update

if TYPE_CHECKING:
    from dlrun.engine.loop import Trained

BLOCK = 32
"""Steps that are taken between two looks up, at most."""

AGAIN = 100
"""Steps that recording a block as a CUDA graph takes about as long as."""

SMALL = 4096
"""Multiplications of a matrix product up to which it is cheaper fused with its neighbours than called for itself."""


EMBEDDED = torch.ops.aten.embedding_dense_backward.default
"""The gradient of an embedding, whose kernel gives the same bits on any number of threads."""


class Unsuited(Exception):
    """Why the steps of a run cannot be one program."""


def compiled(run: Trained) -> Stepping:
    """Return the steps of a run, or of an ensemble, as a program, or one by one, with a warning that says why.

    When runs leave an ensemble, CUDA graphs are recorded again of the others; a compiled program is not made again,
    which takes seconds.
    """
    made = _made(run)
    return Renewed(run, made, _made, after=AGAIN) if isinstance(made, Captured) else made


def _made(run: Trained) -> Stepping:
    try:
        if (why := against(run)) is not None:
            raise Unsuited(why)
        with _unchanged(run.objective.model):
            return Captured(run, example(run), tensors_of(run)) if run.device.type == "cuda" else Compiled(run)
    except Exception as error:
        why = str(error) if isinstance(error, Unsuited) else f"{type(error).__name__}: {error}".splitlines()[0]
        output.warn(f"The steps are taken one by one, not as a compiled program: {why}")
        return Eager(run)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Give a context in which steps are taken to be recorded; raise `Unsuited` if the model has counted them.

    A number that is no tensor would stay in the program as it was then. It is put back.
    """
    modules = [*model.modules()]
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


def against(run: Trained) -> str | None:
    """Return why the steps of a run cannot be one program, in words, if that can be said beforehand."""
    if run.device.type not in ("cpu", "cuda"):
        return f"a program for the device {run.device.type} is not known to be right"
    rule = getattr(run.optimizer, "rule", run.optimizer)
    if not hasattr(rule, "tensors"):
        return f"{type(rule).__name__} has no form in which the rate is a tensor (SGD and Adam have)"
    if getattr(rule, "dampening", 0.0):
        return "with dampening the first step is another than the rest"
    if run.average and run.device.type == "cuda":
        return "the average's decay is another in each step (trainer.ema)"
    if isinstance(getattr(run.batches, "split", None), Streamed):
        return "its samples are read by workers, whose time it is"
    drawing = next(
        (m for m in run.objective.model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p), 0
    )
    if drawing:
        return f"{type(drawing).__name__} draws its masks by the step's key, which a program does not know"
    return None


def tensors_of(run: Trained) -> list[Tensor]:
    """Return what a step changes: weights, buffers, and the rule's state."""
    return [*run.objective.params, *run.objective.model.buffers(), *run.optimizer.rule.tensors()]


def example(run: Trained) -> Batch:
    """Return a batch as a step sees it."""
    batch = next(run.batches.start(0))
    return Batch(batch.x.contiguous(), batch.y.contiguous())


class Compiled:
    """Every step a call of one program on the CPU; batches of another size are taken as they are."""

    def __init__(self, run: Trained) -> None:
        self._run, self._eager = run, Eager(run)
        batch = example(run)
        self._shapes = (batch.x.shape, batch.y.shape)
        self._call, self._normed = program(run, batch)
        self._state = [t.detach() for t in tensors_of(run)]

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the plan's blocks of batches."""
        return blocks(self._run, step, BLOCK)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch."""
        steps = range(step, step + len(block))
        values = [rate(self._run, s) for s in steps]
        # those of an ensemble are tensors, a rate for each member
        rates = values if isinstance(values[0], Tensor) else torch.tensor(values, dtype=torch.float64).unbind()
        return [self._step(*given) for given in zip(steps, block, rates, strict=True)]

    def _step(self, step: int, batch: Batch, lr: Tensor) -> Update:
        x, y = batch
        if (x.shape, y.shape) != self._shapes:
            return self._eager.take(step, [batch])[0]
        found = self._call([*self._state, x.contiguous(), y.contiguous(), lr])
        if self._run.average:
            self._run.average.update(step + 1)
        return Update(found[0], found[1] if self._normed else None)


def program(run: Trained, batch: Batch) -> tuple[Callable[[list[Tensor]], Sequence[Tensor]], bool]:
    """Return a step as a function of [what it changes, x, y, rate], and whether it returns a norm after the loss.

    Everything is as before afterwards. Raises `Unsuited`, or what tracing and compiling raise.
    """
    state = tensors_of(run)
    given = [*state, *batch, torch.as_tensor(run.optimizer.lr, dtype=torch.float64)]
    with put_back(state), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [t.detach().clone() for t in state]
        graph, expected = _traced(run, given)
        after = [t.detach().clone() for t in state]
        put(state, before)
        detached, held = [t.detach() for t in given], _lifted(graph)
        lowered = _lowered(graph, [*detached, *held])

        def call(flat: list[Tensor]) -> Sequence[Tensor]:
            return lowered([*flat, *held])

        found = call(detached)
        nothing = [torch.zeros_like(t) for t in expected]
        n = len(run.objective.params)  # whose changes are small beside those of the rule's state
        changed = agree(before[:n], after[:n], state[:n]) and agree(before[n:], after[n:], state[n:])
        if not (changed and agree(nothing, expected, found)):
            raise Unsuited("the program does not compute what the step does")
    return call, len(expected) > 1


def _traced(run: Trained, given: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """Return the graph of a step, and the loss (and norm) of taking it."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def step(*flat: Tensor) -> list[Tensor]:
        update = run.optimizer.step(run.objective, Batch(flat[-3], flat[-2]), flat[-1])
        found.append(update)
        return [update.loss] if update.grad_norm is None else [update.loss, update.grad_norm]

    found: list[Update] = []
    graph = make_fx(step, decomposition_table=_products())(*given)
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not _without_dropout(node):
            raise Unsuited(f"{node.target} draws random numbers by the step's key, which a program does not know")
    return graph, [t.detach() for t in found[0] if t is not None]


def _lifted(graph: Any) -> list[Tensor]:
    """Make the tensors that a step reads and does not change inputs of its graph, the last; return them.

    They are an ensemble's: the momenta of the runs, their bounds of clipping.
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
        delattr(graph, name)  # what is still there TorchInductor would lift itself, in front of the others
    graph.recompile()
    return held


def _without_dropout(node: Any) -> bool:
    """Return whether a call that could draw masks is told to draw none, as attention is in most models."""
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    return "dropout_p" in names and given.get("dropout_p", defaults["dropout_p"]) == 0


def _lowered(graph: Any, given: list[Tensor]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    from torch._inductor import config

    inner: list[Callable[[list[Tensor]], Sequence[Tensor]]] = []

    # no pool of compiling processes, which the import of what is imported here would start
    with torch.no_grad(), config.patch(size_asserts=False, compile_threads=1):
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.lowering import make_fallback

        def keep(*args: Any, **named: Any) -> Any:
            # what compile_fx puts around this one, for generality's sake, takes as long as a tiny step
            inner.append(compile_fx_inner(*args, **named))
            return inner[-1]

        # written as sums at places, the gradient of an embedding would be added up by two threads in any order
        table = {op: how for op, how in select_decomp_table().items() if op is not EMBEDDED}
        # so it is called as it is; untold, Inductor would refuse that where the environment has CI, as PyTorch's own
        make_fallback(EMBEDDED, warn=False, override_decomp=True)  # type: ignore[no-untyped-call]
        compile_fx(graph, given, inner_compile=keep, decompositions=table)
    if len(inner) != 1:
        raise Unsuited(f"it became {len(inner)} programs, not one")
    return inner[0]


def _products() -> dict[Any, Callable[..., Any]]:
    """Return small matrix products as sums of products, which are fused with what is around them."""

    def mm(a: Tensor, b: Tensor) -> Any:
        if a.shape[0] * a.shape[1] * b.shape[1] > SMALL:
            return NotImplemented
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
        if a.shape[0] * a.shape[1] * b.shape[1] > SMALL or (beta, alpha) != (1, 1):
            return NotImplemented
        return c + (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    return {torch.ops.aten.mm.default: mm, torch.ops.aten.addmm.default: addmm}
