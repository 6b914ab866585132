"""The samples of each split: given with them, or drawn, every class with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.datasets.tensors.splits import cut, first_of_each_class, hold_out, seeded_generator
from dlrun.errors import ConfigError

DRAWN = 0.1
"""Of the training samples, for a split that is not given."""


@dataclass(frozen=True)
class Sizes:
    """What is drawn of the training samples.

    None for a size is `DRAWN`: for validation unless it is given, for the test only if no split is.
    """

    validation_size: int | float | None = None
    test_size: int | float | None = None
    stratify: bool = True
    train_size: int | None = None
    per_class: int | None = None
    split_seed: int = 0
    held_out_classes: Sequence[int] | None = None


def split_by_label(where: str, labels: Tensor, given: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The places of each split's samples, ascending; `labels` [N] are of all, `given` the places that are given.

    `where` they come from is for messages.

    Raises `ConfigError` for sizes out of range, and for one of a split that is given.
    """
    validation_size, test_size = _resolve(where, given, sizes)
    given = dict(given)
    if sizes.held_out_classes is not None:
        pairs = {split: (places, labels[places]) for split, places in given.items()}
        classes = int(labels.max()) + 1
        pairs = hold_out(where, pairs, sizes.held_out_classes, classes, sizes.split_seed, test_size)
        given = {split: places for split, (places, _) in pairs.items()}
        test_size = 0
    places = given["train"]
    own = labels[places]
    if sizes.per_class is not None and sizes.train_size is not None:
        raise ConfigError("dataset.per_class and dataset.train_size both say how many samples to train on. Give one.")
    # `cut` draws by the seed alone: what it draws is looked up in the other order
    plain = _order(len(places), sizes.split_seed)
    looked_up = torch.empty_like(plain)
    looked_up[plain] = stratified_order(own, sizes.split_seed) if sizes.stratify else plain
    count = sizes.per_class
    index = cut(
        len(places),
        seed=sizes.split_seed,
        validation_size=validation_size,
        test_size=test_size,
        train_size=sizes.train_size,
        kept=None if count is None else lambda rest: first_of_each_class(own[looked_up[rest]], count),
    )
    drawn = {split: places[looked_up[some].sort().values] for split, some in index._asdict().items() if len(some)}
    found = given | drawn
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """A random order of samples with labels [N], of whose first k every class has its share, for any k.

    >>> order = stratified_order(torch.tensor([0] * 80 + [1] * 20), seed=0)
    >>> int((order[:10] >= 80).sum()), int((order[10:30] >= 80).sum())
    (2, 4)
    """
    order = _order(len(labels), seed)
    shuffled = labels[order]
    counts = torch.bincount(labels)
    by_class = shuffled.argsort(stable=True)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    places = torch.empty(len(labels), dtype=torch.float64)
    ranks = torch.arange(len(labels)) - starts[shuffled[by_class]]
    # the middle of a sample's part of its class: a class of n has one in each n-th of the order
    places[by_class] = (ranks.double() + 0.5) / counts[shuffled[by_class]].double()
    return order[places.argsort(stable=True)]


def _order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=seeded_generator("split", seed))


def _resolve(where: str, given: Mapping[str, Tensor], sizes: Sizes) -> tuple[int | float, int | float]:
    """How many samples are drawn for validation and test."""
    for split in ("validation", "test"):
        size = getattr(sizes, f"{split}_size")
        if split in given and size:
            raise ConfigError(f"dataset.{split}_size={size}: {where} has its own {split} split. Leave it out.")
    validation, test = sizes.validation_size, sizes.test_size
    if validation is None:
        validation = 0 if "validation" in given else DRAWN
    if test is None:
        test = 0 if len(given) > 1 else DRAWN
    return validation, test
