"""The idx format of MNIST and its likes: a magic number, sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import Source
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import DataError
from dlrun.types import Data

_BYTES = 0x08  # the type code of unsigned bytes; these data sets use no other
_MOST_AXES = 4


def parse(content: bytes) -> Tensor:
    """The uint8 tensor in idx `content`.

    Raises `DataError` for anything but an idx file of unsigned bytes, of the length that its head gives.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])).tolist()
    [5, 7]
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES:
        raise DataError(f"Not an idx file of unsigned bytes: it begins with {content[:4].hex(' ') or 'nothing'}.")
    # byte 3 is the number of axes; then the sizes, 4 bytes each, the highest first
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(f"An idx file of shape {shape} has {len(content) - start:,} values.")
    if len(content) == start or content[3] > _MOST_AXES:
        raise DataError(f"An idx file of shape {shape[:_MOST_AXES]} is none of this kind.")
    # a copy: a tensor may be written to, bytes may not
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


def decode(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Images [N, 1, H, W] and labels [N] of both splits."""
    tensors = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        tensors[f"{split}_x"] = parse(contents[f"{prefix}-images-idx3-ubyte"]).unsqueeze(1)
        tensors[f"{split}_y"] = parse(contents[f"{prefix}-labels-idx1-ubyte"])
    return tensors


def idx_images(source: Source, class_names: Sequence[str], *, path: str | None, options: TensorOptions) -> Data:
    """Build the data set of four idx files.

    The test split is the official one. Raises `DataError` if files are missing or altered, `ConfigError` for options.
    """
    tensors, content = decode_files(source, decode, path=path)
    pairs = {split: (tensors[f"{split}_x"], tensors[f"{split}_y"]) for split in ("train", "test")}
    return build(source.name, pairs, "classification", options, class_names=class_names, content=content)
