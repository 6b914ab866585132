"""Fashion-MNIST: pictures of clothing in the files, sizes and numbers of MNIST.

H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms, 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from typing import Literal

from dlrun.datasets.files.idx import idx_images
from dlrun.datasets.files.sources import FASHION_MNIST
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.tensors import TensorOptions
from dlrun.types import Data

__all__ = ["fashion_mnist"]

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def fashion_mnist(
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
    binarise: Literal["threshold", "stochastic"] | None = None,
) -> Data:
    """Fashion-MNIST, its images float32 [N, 1, 28, 28].

    The test split is the official one. The arguments are those of `dlrun.datasets.mnist.mnist`. Raises `DataError` if
    files are missing or altered, `ConfigError` for sizes out of range.
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
        binarise=binarise,
    )
    return idx_images(FASHION_MNIST, NAMES, path=path, options=options)
