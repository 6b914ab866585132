"""Which operator gives another answer when it is asked the same thing again.

Atomic additions, on a GPU or between the threads of a CPU, add in the order in which they happen to
arrive. Where a run cannot be repeated bit for bit, the first operator that got the same numbers and
returned others is the one to know about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNINITIALISED = ("aten.empty", "aten.new_empty", "aten.resize")
"""How the names of operators begin that return memory as it was left: it may hold anything, and nobody reads it."""


class _Call(NamedTuple):
    """One operator: its name, and digests of the tensors that it got and returned."""

    name: str
    given: tuple[str, ...]
    returned: tuple[str, ...]


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that writes down every operator, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _digests((args, kwargs))
        returned = func(*args, **(kwargs or {}))
        if not str(func).startswith(UNINITIALISED):
            self.calls.append(_Call(str(func), given, _digests(returned)))
        return returned


def unrepeatable(compute: Callable[[], object], *, times: int = 10) -> str | None:
    """Return torch's name of the first operator of `compute` that does not repeat itself, if there is one.

    `compute` sets its own seed; it is called at most `times` + 1 times.

    >>> import torch
    >>> unrepeatable(lambda: torch.ones(2) + 1)
    >>> unrepeatable(lambda: torch.rand(2) + 1)
    'aten.rand.default'
    """
    first = _traced(compute)
    for _ in range(times):
        for before, now in zip(first, _traced(compute), strict=False):
            if before.given == now.given and before.returned != now.returned:
                return now.name
    return None


def _traced(compute: Callable[[], object]) -> list[_Call]:
    trace = _Trace()
    with trace:
        compute()
    return trace.calls


def _digests(values: Any) -> tuple[str, ...]:
    return tuple(_digest(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest() if len(flat) else ""
