"""Digits: 1,797 real handwritten digits of 8×8 pixels (0 to 16), 10 classes, from scikit-learn's files.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998: its test set. Nothing is downloaded, and scikit-learn, which takes 1.4 s to import, is not imported.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import DIGITS
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import DataError
from dlrun.types import Data

__all__ = ["digits"]


def parse(content: bytes) -> Tensor:
    """The table uint8 [N, 65]: 64 pixels and a class.

    Raises `DataError` for another content.
    """
    try:
        values = torch.tensor([[int(value) for value in line.split(b",")] for line in content.splitlines()])
        return values.view(-1, 65).to(torch.uint8)
    except (ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"Not a table of digits: {error}.") from None


def decode(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Images [N, 1, 8, 8] and classes [N]."""
    table = parse(contents["digits.csv"])
    return {"x": table[:, :64].reshape(-1, 1, 8, 8), "y": table[:, 64].clone()}


def digits(
    *,
    path: str | None = None,
    validation_size: int | float = 200,
    test_size: int | float = 300,
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
    binarise: Literal["threshold", "stochastic"] | None = None,
) -> Data:
    """The digits, images float32 [N, 1, 8, 8].

    There is no official test split: `split_seed` draws `test_size` images, then `validation_size` (below 1: fractions),
    and leaves the rest, 1,297, for training; with `held_out_classes` the test images are of these. The other arguments
    are those of `dlrun.datasets.mnist.mnist`. Raises `ConfigError` for sizes out of range, `DataError` without
    scikit-learn's files.
    """
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        splitting=Splitting(stratify, folds=folds, fold=fold),
        normalise=normalise,
        # pixels run from 0 to 16
        scale=16.0,
        augment=augment,
        held_out_classes=held_out_classes,
        pixels=(0.0, 16.0),
        binarise=binarise,
    )
    tensors, content = decode_files(DIGITS, decode, path=path)
    pairs = {"train": (tensors["x"], tensors["y"])}
    names = tuple("0123456789")
    return build("digits", pairs, "classification", options, class_names=names, content=content)
