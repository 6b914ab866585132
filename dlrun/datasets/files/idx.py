"""The idx format of MNIST and of the sets in its image: a magic number, sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import Source
from dlrun.datasets.tensors.tensors import from_tensors
from dlrun.errors import DataError
from dlrun.types import Data

_BYTES = 0x08  # the type code of unsigned bytes, the only one that these sets use


def parse(content: bytes) -> Tensor:
    """Return the uint8 tensor that idx `content` holds.

    Raises `DataError` if it is not an idx file of unsigned bytes, or not of the length that it says.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])).tolist()
    [5, 7]
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _BYTES:
        raise DataError(f"Not an idx file of unsigned bytes: it begins with {content[:4].hex(' ') or 'nothing'}.")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(f"An idx file of shape {shape} has {len(content) - start:,} values.")
    # a copy, for a tensor may be written to and bytes may not
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


def decode(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Return images [N, 1, H, W] and labels [N] of the training and the test files."""
    tensors = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        tensors[f"{part}_x"] = parse(contents[f"{prefix}-images-idx3-ubyte"]).unsqueeze(1)
        tensors[f"{part}_y"] = parse(contents[f"{prefix}-labels-idx1-ubyte"])
    return tensors


def idx_images(
    source: Source,
    class_names: Sequence[str],
    *,
    path: str | None,
    validation_size: int | float,
    train_size: int | None,
    label_noise: float,
    split_seed: int,
    normalise: bool,
    augment: Mapping[str, int | float | bool] | None,
) -> Data:
    """Return the data set of a `source` of four idx files, with its official test split."""
    tensors, content = decode_files(source, decode, path=path)
    return from_tensors(
        source.name,
        (tensors["train_x"], tensors["train_y"]),
        test=(tensors["test_x"], tensors["test_y"]),
        task="classification",
        class_names=class_names,
        validation_size=validation_size,
        train_size=train_size,
        label_noise=label_noise,
        split_seed=split_seed,
        normalise=normalise,
        scale=255.0,
        augment=augment,
        content=content,
    )
