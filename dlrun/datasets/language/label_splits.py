"""The samples of each split: given with them, or drawn, every class with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.tensors.splits import cut_by, hold_out
from dlrun.datasets.tensors.tensors import TensorOptions
from dlrun.errors import ConfigError
from dlrun.types import Spec

DRAWN = 0.1
"""Of the training samples, for a split that is not given."""


@dataclass(frozen=True)
class Sizes:
    """What is drawn of the training samples.

    None for a size is `DRAWN`: for validation unless it is given or is a fold, for the test only if no split is given.
    """

    validation_size: int | float | None = None
    test_size: int | float | None = None
    train_size: int | None = None
    per_class: int | None = None
    split_seed: int = 0
    held_out_classes: Sequence[int] | None = None
    splitting: Splitting = field(default_factory=lambda: Splitting(stratify=True))


def split_by_label(where: str, labels: Tensor, given: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The places of each split's samples, ascending; `labels` [N] are of all, `given` the places that are given.

    `where` they come from is for messages. Raises `ConfigError` for sizes out of range, and for one of a split that is
    given.
    """
    validation_size, test_size = _resolve(where, given, sizes)
    given, classes = dict(given), int(labels.max()) + 1
    if sizes.held_out_classes is not None:
        pairs = {split: (places, labels[places]) for split, places in given.items()}
        pairs = hold_out(where, pairs, sizes.held_out_classes, classes, sizes.split_seed, test_size)
        given = {split: places for split, (places, _) in pairs.items()}
        test_size = 0
    places = given["train"]
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=sizes.train_size,
        per_class=sizes.per_class,
        split_seed=sizes.split_seed,
        splitting=sizes.splitting,
    )
    spec = Spec("classification", (), outputs=classes, classes=classes)
    index = cut_by(where, labels[places], spec, options, own_validation="validation" in given)
    found = given | {split: places[some] for split, some in index._asdict().items() if len(some)}
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _resolve(where: str, given: Mapping[str, Tensor], sizes: Sizes) -> tuple[int | float, int | float]:
    """How many samples are drawn for validation and test."""
    for split in ("validation", "test"):
        size = getattr(sizes, f"{split}_size")
        if split in given and size:
            raise ConfigError(f"dataset.{split}_size={size}: {where} has its own {split} split. Leave it out.")
    validation, test = sizes.validation_size, sizes.test_size
    if validation is None:
        validation = 0 if "validation" in given or sizes.splitting.folds else DRAWN
    if test is None:
        test = 0 if len(given) > 1 else DRAWN
    return validation, test
