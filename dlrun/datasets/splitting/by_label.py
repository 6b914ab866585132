"""The samples of each split by their classes: given with them, or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from dlrun.datasets.splitting.cut import SplitOptions, check_sizes, cut_by
from dlrun.datasets.splitting.hold_out import hold_out
from dlrun.types import Spec

DRAWN = 0.1
"""Of the training samples, for a split that is not given."""


def split_by_label(
    name: str,
    labels: Tensor,
    given: Mapping[str, Tensor],
    options: SplitOptions,
    held_out_classes: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """The places of each split's samples, ascending; `labels` [N] are of all, `given` the places that are given.

    The `name` of the data set is for messages. Raises `ConfigError` for sizes out of range, and for one of a split that
    is given.
    """
    check_sizes(name, given, validation=options.validation_size, test=options.test_size)
    given, classes = dict(given), int(labels.max()) + 1
    if held_out_classes is not None:
        pairs = {split: (places, labels[places]) for split, places in given.items()}
        pairs = hold_out(name, pairs, held_out_classes, classes, options.split_seed, options.test_size)
        given = {split: places for split, (places, _) in pairs.items()}
        options = replace(options, test_size=0)
    places = given["train"]
    spec = Spec("classification", (), outputs=classes, classes=classes)
    index = cut_by(name, labels[places], spec, options, own_validation="validation" in given)
    found = given | {split: places[some] for split, some in index._asdict().items() if len(some)}
    return {split: found[split] for split in ("train", "validation", "test") if split in found}
