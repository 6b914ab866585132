"""MNIST: handwritten digits, 28×28 grey pixels, 10 classes, 60,000 for training and 10,000 for the test.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
"""

from __future__ import annotations

from typing import Literal

from dlrun.datasets.files.idx import idx_images
from dlrun.datasets.files.sources import MNIST
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.tensors import TensorOptions
from dlrun.types import Data

__all__ = ["mnist"]


def mnist(
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
    """MNIST, its images float32 [N, 1, 28, 28].

    The test split is the official one. `split_seed` draws `validation_size` of the 60,000 images (below 1: that
    fraction); `train_size` keeps the first of the rest, `per_class` the first of each class. A share `label_noise` of
    the training labels is wrong. Images are normalised by the mean and deviation of all training pixels, or else
    scaled to 0 … 1, and in training varied by `augment` (shift, flip, crop). With `binarise` a pixel is 0 or 1 instead:
    white above the middle (`threshold`), or with the probability of its grey level, drawn once by `split_seed`
    (`stochastic`).

    With `stratify` each class has its share of the validation split; with `folds` this is the part `fold` of so many.

    With `held_out_classes` the test split has these classes alone, and the other splits have none of them: to see what
    an embedding is worth for classes that it was not trained on.

    Raises `DataError` if files are missing or altered, `ConfigError` for sizes out of range.
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
    return idx_images(MNIST, tuple("0123456789"), path=path, options=options)
