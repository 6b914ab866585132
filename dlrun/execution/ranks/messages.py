"""Plain values sent between the processes of a run: bytes of which no reader runs code.

`torch.distributed` pickles the objects that it sends; whoever could join a run would have its processes run anything.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from dlrun.errors import RunError

_BYTES, _VALUES = b"b", b"v"
"""What a message begins with."""


def broadcast(content: Any, *, first: bool, group: Any) -> Any:
    """The first process's content, in all of them: tensors, numbers, texts, and lists and dicts of them."""
    packed = _pack(content) if first else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(packed)])
    dist.broadcast(size, src=0, group=group)
    packed = packed if first else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(packed, src=0, group=group)
    return content if first else _unpack(packed)


def gather(content: Any, *, number: int, group: Any) -> list[Any]:
    """The contents of all processes, in their order, in all of them."""
    packed = _pack(content)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(number)]
    dist.all_gather(sizes, torch.tensor([len(packed)]), group=group)
    longest = int(max(sizes))
    found = [torch.empty(longest, dtype=torch.uint8) for _ in range(number)]
    # gloo wants the same size of all
    dist.all_gather(found, torch.cat([packed, packed.new_zeros(longest - len(packed))]), group=group)
    return [_unpack(each[: int(size)]) for each, size in zip(found, sizes, strict=True)]


def _pack(content: Any) -> Tensor:
    # a whole checkpoint comes as bytes, which a pickle would write as a longer text
    file = io.BytesIO(_BYTES + content if isinstance(content, bytes) else _VALUES)
    if not isinstance(content, bytes):
        file.seek(len(_VALUES))
        torch.save(content, file)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)


def _unpack(packed: Tensor) -> Any:
    content = packed.numpy().tobytes()
    kind, rest = content[:1], content[1:]
    if kind == _BYTES:
        return rest
    try:
        return torch.load(io.BytesIO(rest), weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"A process of this run sends more than tensors and plain values: {reason}") from None
