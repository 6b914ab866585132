"""The first operator with other outputs for the same inputs.

Atomic additions, on a GPU or between the threads of a CPU, add in the order in which they happen to arrive. They are
the usual reason why a run cannot be repeated bit for bit.
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
"""Beginnings of the names of operators that return memory as it was left: it may hold anything, and nobody reads it."""


class _Call(NamedTuple):
    """One operator's name, and digests of its inputs and outputs."""

    name: str
    given: tuple[str, ...]
    returned: tuple[str, ...]


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operator, also of the backward pass."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _digests((args, kwargs))
        returned = func(*args, **(kwargs or {}))
        if not str(func).startswith(UNINITIALISED):
            self.calls.append(_Call(str(func), given, _digests(returned)))
        return returned


def first_nondeterministic(compute: Callable[[], object], *, times: int = 10) -> str | None:
    """The first operator with other outputs for equal inputs.

    `compute` sets its own seed. It is called at most `times` + 1 times.

    >>> import torch
    >>> first_nondeterministic(lambda: torch.ones(2) + 1)
    >>> first_nondeterministic(lambda: torch.rand(2) + 1)
    'aten.rand.default'
    """
    first = _record(compute)
    for _ in range(times):
        # after a difference the calls may be others, and not as many
        for before, now in zip(first, _record(compute), strict=False):
            if before.given == now.given and before.returned != now.returned:
                return now.name
    return None


def _record(compute: Callable[[], object]) -> list[_Call]:
    trace = _Trace()
    with trace:
        compute()
    return trace.calls


def _digests(values: Any) -> tuple[str, ...]:
    return tuple(_digest(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest() if len(flat) else ""
