"""The modules of an objective whose weights are gathered when they are called, and not before.

All other weights are gathered for the whole step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dlrun.engine.forward.checkpointing import Checkpointed
from dlrun.engine.forward.recomputing import recomputing
from dlrun.engine.objective import Objective
from dlrun.nests.nest import leaves
from dlrun.types import Batch

LARGE = 1 << 20
"""Numbers of a layer that is a block of its own."""


def find_blocks(objective: Objective, batch: Batch) -> list[str]:
    """The names of the blocks, in `nn.ModuleList(objective.modules)`.

    They are the composite modules of lists, such as the blocks of a transformer or of a ResNet, and large layers. A
    pass over `batch` shows that each is called once, and that nothing else uses its weights.
    """
    root = nn.ModuleList(objective.modules)
    candidates = {name: block for part, m in root.named_children() for name, block in _candidates(m, part)}
    shared = _shared(root, candidates)
    candidates = {name: block for name, block in candidates.items() if name not in shared}
    owner = {id(p): name for name, block in candidates.items() for p in block.parameters()}
    with ExitStack() as hooks:
        watch = _Watch(owner)
        for name, block in candidates.items():
            before = block.register_forward_pre_hook(_call(watch.begin, name))
            after = block.register_forward_hook(_call(watch.end, name), always_call=True)
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with torch.no_grad(), watch:
            objective.weighed(batch)
    return [name for name in candidates if watch.calls[name] == 1 and name not in watch.outside]


def _call(function: Callable[[str], None], name: str) -> Callable[..., None]:
    return lambda *_: function(name)


def _candidates(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    for own, child in module.named_children():
        inner, called = f"{name}.{own}", not isinstance(child, nn.ModuleList | nn.ModuleDict)
        composite = any(True for _ in child.children())
        size = sum(p.numel() for p in child.parameters())
        if called and size and ((listed and composite) or (not composite and size >= LARGE)):
            yield inner, child
        # one that computes again by itself takes the weights within, of which FSDP learns nothing in a backward pass
        elif isinstance(child, Checkpointed) or child not in recomputing(child):
            yield from _candidates(child, inner)


def _shared(root: nn.Module, candidates: Mapping[str, nn.Module]) -> set[str]:
    """The candidates that share a weight with another one or with what lies outside."""
    holders: dict[int, set[str]] = {}
    for place, p in root.named_parameters(remove_duplicate=False):
        found = (name for name in candidates if place.startswith(name + "."))
        holders.setdefault(id(p), set()).add(next(found, ""))
    return set().union(*(names for names in holders.values() if len(names) > 1))


class _Watch(TorchFunctionMode):
    """Sees the functions that take a weight while its block is not called."""

    def __init__(self, owner: Mapping[int, str]) -> None:
        super().__init__()
        self._owner, self._active = owner, list[str]()
        self.calls = Counter[str]()
        self.outside = set[str]()

    def begin(self, name: str) -> None:
        self._active.append(name)
        self.calls[name] += 1

    def end(self, name: str) -> None:
        self._active.remove(name)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for given in leaves((tuple(args), kwargs or {})):
            name = self._owner.get(id(given))
            if name is not None and name not in self._active:
                self.outside.add(name)
        return func(*args, **kwargs or {})
