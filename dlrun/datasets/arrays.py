"""Arrays of your own in a file: .npz, .npy, safetensors or HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dlrun.datasets.columns.labels import read_labels
from dlrun.datasets.files.containers import WHOLE, Container, open_arrays
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import drawn_size
from dlrun.datasets.tensors.checks import to_tensor
from dlrun.datasets.tensors.tensors import TensorOptions, build
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data

__all__ = ["arrays"]

DRAWN = 0.15
"""Of all samples, for a split that is not given."""


def arrays(
    *,
    path: str | None = None,
    inputs: str | None = None,
    targets: str | None = None,
    targets_path: str | None = None,
    validation_inputs: str | None = None,
    validation_targets: str | None = None,
    test_inputs: str | None = None,
    test_targets: str | None = None,
    task: Literal["classification", "regression"] | None = None,
    channels: Literal["none", "last"] | None = None,
    pixels: tuple[float, float] | None = None,
    group: str | None = None,
    time: str | None = None,
    stratify: bool = False,
    folds: int | None = None,
    fold: int | None = None,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    normalise: bool = True,
    scale_targets: bool = False,
    augment: dict[str, int | float | bool | str] | None = None,
) -> Data:
    """Inputs [N, …] and targets [N] or [N, O], arrays with names in one file, or two .npy files.

    `inputs` and `targets` are names in the file; the splits' own arrays may have others. Texts and whole numbers are
    classes, other numbers a regression, unless `task` says otherwise. Inputs are normalised by the training split for
    each index of axis 1, the channels; with `channels` they are last, or there is no axis of them. `group` and `time`
    are names of arrays [N]. The other arguments are those of `dlrun.datasets.table.table` and `from_tensors`. Raises
    `DataError` for what is in the file, `ConfigError` for the arguments.
    """
    if path is None:
        raise ConfigError("dataset=numpy needs a file. Type for example dataset.path=data.npz")
    file = open_arrays(where := Path(path).expanduser())
    named = {
        "train": (inputs, targets),
        "validation": (validation_inputs, validation_targets),
        "test": (test_inputs, test_targets),
    }
    pairs = _alone(file, targets_path) if WHOLE in file.arrays else _pairs(file, named)
    labels, names, task = read_labels({split: y for split, (_, y) in pairs.items()}, task)
    shaped = {split: _with_channels(x, channels) for split, (x, _) in pairs.items()}
    data = build(
        "numpy",
        {split: (shaped[split], labels[split]) for split in pairs},
        task,
        TensorOptions(
            validation_size=drawn_size(validation_size, DRAWN, own="validation" in pairs or folds is not None),
            test_size=drawn_size(test_size, DRAWN, own="test" in pairs),
            train_size=train_size,
            per_class=per_class,
            label_noise=label_noise,
            split_seed=split_seed,
            normalise=normalise,
            scale_targets=scale_targets,
            pixels=pixels,
            augment=augment,
            splitting=Splitting.of(
                stratify=stratify,
                groups=_one_each(file, "group", group),
                times=_one_each(file, "time", time),
                folds=folds,
                fold=fold,
            ),
        ),
        class_names=names,
    )
    return replace(data, notes=data.notes | {"path": str(where)})


def _pairs(file: Container, named: Mapping[str, tuple[str | None, str | None]]) -> dict[str, tuple[Any, Any]]:
    """The arrays of each split that has some."""
    found = {}
    for split, names in named.items():
        keys = [f"dataset.{kind}" if split == "train" else f"dataset.{split}_{kind}" for kind in ("inputs", "targets")]
        given = [name for name in names if name is not None]
        if split != "train" and not given:
            continue
        if len(given) < 2:
            typed = " ".join(f"{key}={name}" for key, name in zip(keys, [*file.arrays, "NAME"], strict=False))
            raise ConfigError(
                f"{' and '.join(keys)}: both are needed. {file.path} has the arrays {file.listed}. Type for example "
                f"{typed}."
            )
        for key, name in zip(keys, given, strict=True):
            file.check(key, name)
        found[split] = (file[given[0]], file[given[1]])
    return found


def _alone(file: Container, targets_path: str | None) -> dict[str, tuple[Any, Any]]:
    """The pair of two .npy files."""
    if targets_path is None:
        raise ConfigError(f"{file.path} has one array. Type dataset.targets_path=FILE.npy for the targets.")
    other = open_arrays(Path(targets_path).expanduser(), key="dataset.targets_path")
    if WHOLE not in other.arrays:
        raise ConfigError(f"dataset.targets_path: {other.path} is no .npy file, as dataset.path is.")
    return {"train": (file[WHOLE], other[WHOLE])}


def _with_channels(values: Any, channels: str | None) -> Any:
    """The samples with their channels first."""
    x = to_tensor(values, "The inputs")
    if channels == "none":
        return x[:, None]
    if channels == "last":
        if x.ndim < 3:
            raise DataError(f"dataset.channels=last: the inputs are {list(x.shape)}; expected [N, …, channels].")
        return x.movedim(-1, 1)
    return x


def _one_each(file: Container, key: str, name: str | None) -> Any:
    if name is None:
        return None
    file.check(f"dataset.{key}", name)
    return file[name]
