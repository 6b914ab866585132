"""Tables that come with scikit-learn: nothing is downloaded, and scikit-learn is not imported.

B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least Angle Regression, Annals of Statistics, 2004 (diabetes);
W. Wolberg, O. Mangasarian, N. Street, W. Street, Breast Cancer Wisconsin (Diagnostic), UCI, 1995; S. Aeberhard,
M. Forina, Wine, UCI, 1992.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlrun.datasets.files.decode import decode_files
from dlrun.datasets.files.sources import BREAST_CANCER, DIABETES, WINE, Source
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import DataError
from dlrun.types import Data, Task

__all__ = ["breast_cancer", "diabetes", "wine"]

_CELLS = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave points", "symmetry", "fractal dimension"),
)

COLUMNS = {
    "diabetes": ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
    "breast_cancer": (
        *(f"mean {each}" for each in _CELLS),
        *(f"{each} error" for each in _CELLS),
        *(f"worst {each}" for each in _CELLS),
    ),
    "wine": (
        *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids"),
        *("nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines"),
        "proline",
    ),
}
"""The inputs, as scikit-learn names them."""

CLASSES = {"breast_cancer": ("malignant", "benign"), "wine": ("class_0", "class_1", "class_2")}


def numbers(content: bytes, *, header: bool = False) -> Tensor:
    """A table of numbers, float64 [N, C], between blanks or commas.

    Raises `DataError` for another content.
    """
    try:
        lines = content.replace(b",", b" ").splitlines()[int(header) :]
        return torch.tensor([[float(cell) for cell in line.split()] for line in lines], dtype=torch.float64)
    except ValueError as error:
        raise DataError(f"Not a table of numbers: {error}.") from None


def decode_diabetes(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Inputs [N, 10] and targets [N]."""
    return {"x": numbers(contents["diabetes_data_raw.csv"]), "y": numbers(contents["diabetes_target.csv"])[:, 0]}


def decode_classes(contents: dict[str, bytes]) -> dict[str, Tensor]:
    """Inputs [N, C] and classes [N]."""
    [content] = contents.values()
    # the header has sizes and the classes' names
    table = numbers(content, header=True)
    return {"x": table[:, :-1].clone(), "y": table[:, -1].long()}


def diabetes(
    *,
    path: str | None = None,
    validation_size: int | float = 0.15,
    test_size: int | float = 0.15,
    train_size: int | None = None,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
    normalise: bool = True,
    scale_targets: bool = False,
) -> Data:
    """442 diabetes patients, 10 measures each; the target is how far the disease went in a year, 25 to 346.

    The measures are raw; `normalise` scales them by the training split, `scale_targets` the targets. With `folds` the
    part `fold` of what is no test is the validation split. Raises `ConfigError` for sizes out of range, `DataError`
    without scikit-learn's files.
    """
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        split_seed=split_seed,
        normalise=normalise,
        scale_targets=scale_targets,
        splitting=Splitting(folds=folds, fold=fold),
    )
    return _make(DIABETES, options, path)


def breast_cancer(
    *,
    path: str | None = None,
    validation_size: int | float = 0.15,
    test_size: int | float = 0.15,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    stratify: bool = True,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
    normalise: bool = True,
) -> Data:
    """569 tumours, 30 measures of their cells each: malignant or benign.

    The arguments are those of `diabetes`, and of `dlrun.datasets.mnist.mnist`; with `stratify` both classes have their
    share of each split.
    """
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        normalise=normalise,
        splitting=Splitting(stratify, folds=folds, fold=fold),
    )
    return _make(BREAST_CANCER, options, path)


def wine(
    *,
    path: str | None = None,
    validation_size: int | float = 0.15,
    test_size: int | float = 0.15,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    stratify: bool = True,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
    normalise: bool = True,
) -> Data:
    """178 wines of three cultivars, 13 measures each.

    The arguments are those of `breast_cancer`.
    """
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        normalise=normalise,
        splitting=Splitting(stratify, folds=folds, fold=fold),
    )
    return _make(WINE, options, path)


def _make(source: Source, options: TensorOptions, path: str | None) -> Data:
    name, classes = source.name, CLASSES.get(source.name, ())
    tensors, content = decode_files(source, decode_classes if classes else decode_diabetes, path=path)
    pairs = {"train": (tensors["x"], tensors["y"])}
    task: Task = "classification" if classes else "regression"
    return build(name, pairs, task, options, class_names=classes, columns=COLUMNS[name], content=content)
