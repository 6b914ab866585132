"""CIFAR-10: colour pictures of 32×32 pixels, 10 classes, 50,000 for training and 10,000 for the test.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The files are pickles of Python 2; the
unpickler here makes arrays and nothing else.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy
import torch
from torch import Tensor

from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import CIFAR10
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import DataError
from dlrun.types import Data

__all__ = ["cifar10"]

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _empty_array(*_: Any) -> Any:
    """An empty array, in place of one of a claimed shape.

    The pickle's state has the true shape and the bytes; a claimed shape could take any memory.
    """
    return numpy.empty(0)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    # only an argument of `_reconstruct`: called by itself it would take any memory
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): numpy.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(f"A batch of CIFAR-10 names `{module}.{name}`; only arrays are allowed in it.") from None


def parse(content: bytes) -> tuple[Tensor, Tensor]:
    """The images uint8 [N, 3, 32, 32] and labels int64 [N].

    They are those of one batch file. Raises `DataError` for another content, and for a pickle of anything but arrays,
    numbers and texts.
    """
    try:
        # Python 2 wrote its texts as bytes, the keys too
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images, labels = torch.from_numpy(batch[b"data"]), torch.tensor(batch[b"labels"])
        # a row has all red values, then all green, then all blue
        return images.view(-1, 3, 32, 32), labels
    except DataError:
        raise
    except Exception as error:  # of another file, the unpickler raises whatever it stumbles over
        raise DataError(f"Not a batch of CIFAR-10: {error}.") from None


def decode(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Images [N, 3, 32, 32] and labels [N] of both splits."""
    batches = {name.rpartition("/")[2]: parse(content) for name, content in contents.items()}
    # the names without their folder: it may be left out
    test = batches.pop("test_batch")
    x, y = zip(*(batches[name] for name in sorted(batches)), strict=True)
    return {"train_x": torch.cat(x), "train_y": torch.cat(y), "test_x": test[0], "test_y": test[1]}


def cifar10(
    *,
    path: str | None = None,
    validation_size: int | float = 5000,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    stratify: bool = False,
    folds: int | None = None,
    fold: int | None = None,
    normalise: bool = True,
    augment: dict[str, int | float | bool | str] | None = None,
    held_out_classes: list[int] | None = None,
) -> Data:
    """CIFAR-10, its images float32 [N, 3, 32, 32].

    The test split is the official one. The arguments are those of `dlrun.datasets.mnist.mnist`; the mean and deviation
    are of each colour. Raises `DataError` if files are missing or altered, `ConfigError` for sizes out of range.
    """
    options = TensorOptions(
        validation_size=validation_size,
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        splitting=Splitting(stratify, folds=folds, fold=fold),
        normalise=normalise,
        scale=255.0,
        augment=augment,
        held_out_classes=held_out_classes,
        pixels=(0.0, 255.0),
    )
    tensors, content = decode_files(CIFAR10, decode, path=path)
    pairs = {split: (tensors[f"{split}_x"], tensors[f"{split}_y"]) for split in ("train", "test")}
    return build("cifar10", pairs, "classification", options, class_names=NAMES, content=content)
