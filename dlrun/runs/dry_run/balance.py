"""Batches of equally many samples of some classes, checked against the training split."""

from __future__ import annotations

import torch

from dlrun.engine.batches import ClassBalance, LoaderSplit
from dlrun.errors import ConfigError
from dlrun.terminal.format import counted
from dlrun.types import Data


def make_balance(data: Data, classes: int | None, size: int, device: torch.device) -> ClassBalance | None:
    """The balance of batches of `size` samples of so many `classes`; None without a number.

    Raises `ConfigError` for a data set without classes at hand, and for numbers that do not fit it.
    """
    if classes is None:
        return None
    given, split = f"trainer.classes_per_batch={classes}", data.train
    if data.spec.classes is None:
        raise ConfigError(f"{given}: the data set {data.name} has no classes. Leave it out.")
    if isinstance(split, LoaderSplit):
        raise ConfigError(
            f"{given} needs the classes of all samples at once; {data.name} is read sample by sample. Leave it out."
        )
    if size >= len(split):
        raise ConfigError(f"{given}: a batch is the whole training split. Type for example trainer.batch_size=64")
    y = split.gather(torch.arange(len(split), device=device)).y.cpu()
    places = {number: (y == number).nonzero()[:, 0] for number in sorted({*y.tolist()})}
    if classes > len(places):
        raise ConfigError(
            f"{given}: the training split of {data.name} has {len(places)} classes. "
            f"Type for example trainer.classes_per_batch={len(places)}"
        )
    if size % classes:
        raise ConfigError(
            f"{given}: trainer.batch_size={size} is no multiple of it. Type for example "
            f"trainer.batch_size={max(1, size // classes) * classes}"
        )
    each = size // classes
    number, fewest = min(places.items(), key=lambda item: len(item[1]))
    if len(fewest) < each:
        name = data.spec.class_names[number] if data.spec.class_names else number
        raise ConfigError(
            f"{given} takes {each} samples of a class in a batch of {size}; the class {name} has "
            f"{counted(len(fewest), 'sample')} in the training split. Type for example "
            f"trainer.batch_size={classes * len(fewest)}"
        )
    return ClassBalance(tuple(places.values()), classes, each)
