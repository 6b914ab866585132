"""Activation checkpointing: memory for compute (Chen et al. 2016, Training deep nets with sublinear memory cost,
arXiv:1604.06174).

The forward pass keeps the input of each segment of blocks. The backward pass computes what lies within a segment again,
with the same draws of dropout and the same buffers. The graph and the order of its sums are those of a plain pass, so
all numbers are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import isqrt
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dlrun.engine.forward.buffers import BufferWatch
from dlrun.engine.forward.recomputing import recomputing
from dlrun.errors import ConfigError
from dlrun.models.blocks import Blocks

Every = bool | Literal["every block", "sqrt"]
"""The blocks of a segment: one (true), or the root of their number."""

KEY = "trainer.activation_checkpointing"


class Checkpointed(nn.Module):
    """The base of a module that keeps the inputs of its segments alone. Put before the module's own class."""

    recomputes: bool

    def _again(self, function: Callable[..., Any], watch: BufferWatch, *args: Any, **kwargs: Any) -> Any:
        """Call a function whose activations are computed again."""
        return checkpoint(function, *args, use_reentrant=False, context_fn=watch.contexts, **kwargs)

    def _due(self) -> bool:
        # without a graph nothing is kept anyway
        return self.recomputes and torch.is_grad_enabled()


class CheckpointedBlock(Checkpointed):
    """A segment of one block, which its model calls."""

    _watch: BufferWatch

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._due():
            return super().forward(*args, **kwargs)
        return self._again(super().forward, self._watch, *args, **kwargs)


class CheckpointedChain(Checkpointed):
    """A chain of modules, cut into segments at `_ends`."""

    _ends: Sequence[int]
    _watches: Sequence[BufferWatch]

    def forward(self, x: Any, *rest: Any) -> Any:
        if not self._due():
            return super().forward(x, *rest)
        modules, start = [*self.children()], 0
        for end, watch in zip(self._ends, self._watches, strict=True):
            x = self._again(partial(_run, modules[start:end]), watch, x, *rest)
            start = end
        return x


def apply(model: nn.Module, every: Every) -> None:
    """Have the blocks of a model computed again in the backward pass.

    The blocks are those of its attribute `blocks`, else of each `nn.Sequential` that lies in no other. Raises
    `ConfigError` for a model without blocks.
    """
    if every is False:
        return
    found = find_chains(model)
    blocks = sum(len(_starts(chain)) for chain in found)
    _check(model, found, blocks, every)
    size = max(1, isqrt(blocks)) if every == "sqrt" else 1
    for chain in found:
        if _is_called(chain):
            _cut(chain, size)
        else:
            for block in chain:  # type: ignore[attr-defined]
                block.__class__ = _with(CheckpointedBlock, type(block))
                block.recomputes, block._watch = True, BufferWatch([block])


def remove(model: nn.Module) -> None:
    """Undo `apply`."""
    for module in model.modules():
        if isinstance(module, Checkpointed):
            for name in ("recomputes", "_ends", "_watches", "_watch"):
                vars(module).pop(name, None)
            module.__class__ = type(module).__bases__[1]


@contextmanager
def requiring_calls(model: nn.Module) -> Iterator[None]:
    """Raise `ConfigError` if a pass within the context leaves out a checkpointed module."""
    waiting = {id(module): name for name, module in model.named_modules() if isinstance(module, Checkpointed)}

    def note(module: nn.Module, *_: object) -> None:
        waiting.pop(id(module), None)

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, Checkpointed)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if waiting:
        name = next(iter(waiting.values())) or "itself"
        raise ConfigError(
            f"{KEY}: the model {type(model).__name__} does not call its `{name}` as a whole, so nothing of it would be "
            "computed again. Call it in `forward`, or give the model's blocks as an attribute `blocks`, a ModuleList."
        )


def find_chains(model: nn.Module) -> list[nn.Module]:
    """The modules whose children are a model's blocks."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList):
        return [blocks]
    chains: list[nn.Module] = []
    inner = set[int]()
    for module in model.modules():
        if id(module) not in inner and isinstance(module, nn.Sequential) and len(module) > 1:
            chains.append(module)
            inner |= {id(each) for each in module.modules()}
    return chains


def _check(model: nn.Module, chains: Sequence[nn.Module], blocks: int, every: Every) -> None:
    given = f"{KEY}={str(every).lower() if isinstance(every, bool) else every}"
    if again := next(iter(recomputing(model)), None):
        raise ConfigError(
            f"{given}: {type(again).__name__} of the model {type(model).__name__} computes its activations again by "
            f"itself. Leave {KEY} out, or type model.reversible=false."
        )
    if blocks < 2:
        raise ConfigError(
            f"{given}: the model {type(model).__name__} has no blocks to compute again: neither an `nn.Sequential` of "
            "several layers nor an attribute `blocks`. Leave it out; trainer.accumulate=2 halves the activations too."
        )
    if every == "sqrt" and not all(map(_is_called, chains)):
        raise ConfigError(
            f"{given}: the model {type(model).__name__} calls its blocks one by one (a ModuleList), so they cannot be "
            f"taken several at once. Type {KEY}=true, or make `blocks` an nn.Sequential."
        )


def _is_called(chain: nn.Module) -> bool:
    return isinstance(chain, nn.Sequential | Blocks)


def _starts(chain: nn.Module) -> list[int]:
    """The places in a chain where its blocks begin.

    A layer with a matrix or kernel begins one; norms, activations and dropout belong to the layer before them.
    """
    if not isinstance(chain, nn.Sequential):
        return [*range(len(chain))]  # type: ignore[arg-type]
    places = [i for i, child in enumerate(chain) if any(p.ndim > 1 for p in child.parameters())]
    return [0, *places[1:]]


def _cut(chain: nn.Module, size: int) -> None:
    """Make a chain checkpointed, in segments of `size` blocks."""
    children, starts = [*chain.children()], _starts(chain)
    ends = [*starts[size::size], len(children)]
    chain.__class__ = _with(CheckpointedChain, type(chain))
    assert isinstance(chain, CheckpointedChain)
    chain.recomputes, chain._ends = True, ends
    chain._watches = [BufferWatch(children[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _with(base: type[Checkpointed], kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` and `kind`."""
    return type(f"Checkpointed{kind.__name__}", (base, kind), {})


def _run(modules: Sequence[nn.Module], x: Any, *rest: Any) -> Any:
    for module in modules:
        x = module(x, *rest)
    return x
