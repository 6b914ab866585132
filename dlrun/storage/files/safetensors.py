"""The safetensors format: a head of JSON, then the tensors' bytes. No code is in it.

Source: https://huggingface.co/docs/safetensors, "Format". 8 bytes give the length of the head, which has for each name
the type, the shape and the first and last byte after the head.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dlrun.errors import DamagedFile
from dlrun.storage.files.opening import open_regular

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
LARGEST = 1 << 40
"""Numbers of a tensor."""
ADVICE = "Download it again, or put a copy of it back."


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises `FileNotFoundError`, and `DamagedFile` for anything but a whole safetensors file.
    """
    with open_regular(path, "rb", advice=ADVICE) as file:
        try:
            start = 8 + int.from_bytes(file.read(8), "little")
            if start > (size := os.fstat(file.fileno()).st_size):
                raise ValueError(f"it has {size} bytes, its head alone should have {start}")
            head = json.loads(file.read(start - 8))
            entries = {name: entry for name, entry in head.items() if name != "__metadata__"}
            # before anything is read: a head may ask for any amount of memory
            _check_spans([_span(entry) for entry in entries.values()], size - start)
            return {name: _tensor(file, start, entry) for name, entry in entries.items()}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            found = f"it is no whole safetensors file ({type(error).__name__}: {error})"
            raise DamagedFile(path, found, ADVICE) from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name, with texts by name.

    Tensors that share their numbers are written each. Raises `ValueError` for one of a type that the format lacks.
    """
    names = {dtype: name for name, dtype in TYPES.items()}
    head: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in names or tensor.layout is not torch.strided:
            raise ValueError(f"{name} is {tensor.dtype} {tensor.layout}, which safetensors does not have")
        size = tensor.numel() * tensor.element_size()
        head[name] = {"dtype": names[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(head).encode()
    # so that the tensors begin at a multiple of 8 bytes
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
            file.write(plain.reshape(-1).view(torch.uint8).numpy().tobytes())


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    """The first and last byte of a tensor; raises `ValueError` if its shape takes others."""
    shape, (first, last) = [int(size) for size in entry["shape"]], entry["data_offsets"]
    fits = last - first == prod(shape) * TYPES[entry["dtype"]].itemsize
    # of an empty tensor the other sizes are kept, and may be any numbers
    if min(first, *shape, 0) < 0 or not fits or prod(filter(None, shape)) > LARGEST:
        raise ValueError(f"a tensor {shape} of {entry['dtype']} in the bytes {first} to {last}")
    return int(first), int(last)


def _check_spans(spans: list[tuple[int, int]], size: int) -> None:
    """Raise `ValueError` unless the tensors follow one another to the end, as the format has it."""
    place = 0
    for first, last in sorted(spans):
        if first != place:
            raise ValueError(f"a tensor begins at byte {first}, and the one before it ends at {place}")
        place = last
    if place != size:
        raise ValueError(f"its tensors have {place} bytes, and behind its head are {size}")


def _tensor(file: IO[bytes], start: int, entry: dict[str, Any]) -> Tensor:
    dtype, shape, (first, last) = TYPES[entry["dtype"]], [int(size) for size in entry["shape"]], entry["data_offsets"]
    file.seek(start + first)
    data = bytearray(file.read(last - first))
    if len(data) != last - first:
        raise ValueError(f"it ends before byte {start + last}")
    return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
