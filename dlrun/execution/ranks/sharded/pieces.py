"""Tensors cut along their first axis, a piece for each process, as FSDP cuts parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from dlrun.execution.ranks.world import World
from dlrun.nests.nest import leaves, map_nest


def piece(tensor: Tensor, rank: int, ranks: int) -> Tensor:
    """The piece of one process, a view; a number without an axis is whole everywhere.

    >>> [piece(torch.arange(5), rank, 4).tolist() for rank in range(4)]
    [[0, 1], [2, 3], [4], []]
    """
    if not tensor.ndim:
        return tensor
    pieces = torch.chunk(tensor, ranks)
    return pieces[rank] if rank < len(pieces) else tensor[:0]


class Pieces:
    """Cuts tensors of a nest into pieces and joins them again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def cut(self, nest: Any) -> Any:
        """Copies of this process's pieces of whole tensors."""
        return map_nest(lambda leaf: self._cut(leaf) if isinstance(leaf, Tensor) else leaf, nest)

    def _cut(self, tensor: Tensor) -> Tensor:
        return piece(tensor.detach(), self._world.rank, self._world.size).clone(memory_format=torch.contiguous_format)

    def collect(self, nest: Any) -> Any:
        """The whole tensors, in the first process's host memory; the others, which all have to ask, get empty ones."""
        found = [leaf for leaf in leaves(nest) if isinstance(leaf, Tensor) and leaf.ndim]
        whole = iter(self._joined(found, self._keep))
        return map_nest(lambda leaf: next(whole) if isinstance(leaf, Tensor) and leaf.ndim else leaf, nest)

    def _keep(self, tensor: Tensor) -> Tensor:
        return on_host(tensor) if self._world.first else tensor[:0]

    def join(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """The whole tensors, on the device of each process."""
        return [*self._joined(pieces, lambda whole: whole)]

    def _joined(self, pieces: Sequence[Tensor], keep: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        lengths = zip(*self._world.gather([len(each) for each in pieces]), strict=True)
        for own, each in zip(pieces, lengths, strict=True):
            yield keep(_join(own.detach(), each))


def _join(own: Tensor, lengths: Sequence[int]) -> Tensor:
    if not lengths[0]:
        return own
    # the first has one of the largest pieces
    padded = own.new_zeros(lengths[0], *own.shape[1:])
    padded[: len(own)] = own
    whole = own.new_empty(len(lengths) * lengths[0], *own.shape[1:])
    dist.all_gather([*torch.split(whole, lengths[0])], padded)
    # whole pieces come first, then a smaller one, then none: what was added lies at the end
    return whole[: sum(lengths)]


def on_host(nest: Any) -> Any:
    """Copies of a nest's tensors, in host memory."""
    return map_nest(lambda t: t.detach().to("cpu", copy=True) if isinstance(t, Tensor) else t, nest)
