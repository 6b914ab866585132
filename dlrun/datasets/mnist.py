"""MNIST: handwritten digits, 28×28 grey pixels, 10 classes, 60,000 for training and 10,000 for the test.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
"""

from __future__ import annotations

from dlrun.datasets.files.idx import idx_images
from dlrun.datasets.files.sources import MNIST
from dlrun.types import Data

__all__ = ["mnist"]


def mnist(
    *,
    path: str | None = None,
    validation_size: int | float = 5000,
    train_size: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    normalise: bool = True,
    augment: dict[str, int | float | bool] | None = None,
) -> Data:
    """Return MNIST with its official test split, images float32 [N, 1, 28, 28].

    `validation_size` images (or a fraction of them) are taken from the 60,000 by `split_seed`; of the
    rest `train_size` keeps so many, and a share `label_noise` of their labels is
    wrong. Images are normalised by the mean and deviation of all training
    pixels, or scaled to 0..1. Raises `DataError` if the files are missing or altered.
    """
    return idx_images(
        MNIST,
        tuple("0123456789"),
        path=path,
        validation_size=validation_size,
        train_size=train_size,
        label_noise=label_noise,
        split_seed=split_seed,
        normalise=normalise,
        augment=augment,
    )
