"""The memory of a step's activations, at its peak.

On the CPU each tensor's storage counts from the operation that makes it to its end. Hooks on saved tensors would not
do: they miss what the backward pass computes again. The gradients of weights are left out; they are as large as the
weights, whatever is kept. On CUDA it is the allocator's peak above what was allocated before, gradients included.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_of(step: Callable[[], Sequence[Tensor]], held: Iterable[Tensor], device: torch.device) -> int | None:
    """The most bytes that a step holds at once, beside the tensors `held` and those that it returns.

    None on a device that tells neither.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    if device.type != "cpu":
        return None
    storages = _Storages(held)
    with storages:
        results = step()
        places = {storages.place(tensor) for tensor in results}
    return storages.peak(without=places)


class _Storages(TorchDispatchMode):
    """Notes the beginning and the end of each storage that operations make within the context."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # by address: a storage lives as long as its address is here
        self._alive: dict[int, int] = {tensor.untyped_storage()._cdata: -1 for tensor in held}
        self._sizes: list[int] = []
        # the number of a storage, or its complement for its end
        self._events: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._alive:
            place = self._alive[address] = len(self._sizes)
            self._sizes.append(storage.nbytes())
            self._events.append(place)
            weakref.finalize(storage, self._end, address).atexit = False

    def _end(self, address: int) -> None:
        self._events.append(~self._alive.pop(address))

    def place(self, tensor: Tensor) -> int:
        """The number of a tensor's storage; -1 for one from before."""
        return self._alive.get(tensor.untyped_storage()._cdata, -1)

    def peak(self, *, without: set[int]) -> int:
        """The most bytes alive at once."""
        now = most = 0
        for event in self._events:
            place = max(event, ~event)
            if place not in without:
                now += self._sizes[place] if event >= 0 else -self._sizes[place]
                most = max(most, now)
        return most
