"""Classes that are left to the test split alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlrun.datasets.splitting.cut import sample_count
from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.errors import ConfigError
from dlrun.terminal.format import counted


def hold_out(
    name: str,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    classes: Sequence[int],
    known: int | None,
    seed: int,
    test_size: int | float = 0,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Leave `classes` to the test split, and the others to training and validation.

    A data set without a test split gets one: `test_size` samples of these classes, or that fraction of them. Raises
    `ConfigError` for classes that are none of the `known` ones, and for sizes out of range.

    >>> pairs = hold_out("mine", {"train": (torch.arange(9), torch.arange(9) % 3)}, [2], known=3, seed=0, test_size=2)
    >>> pairs["train"][1].tolist(), pairs["test"][1].tolist()
    ([0, 1, 0, 1, 0, 1], [2, 2])
    """
    given = f"dataset.held_out_classes={[*classes]}"
    if known is None:
        raise ConfigError(f"{given}: the data set {name} has no classes.")
    if not classes or any(not 0 <= each < known for each in classes) or len({*classes}) < len(classes):
        raise ConfigError(f"{given}: expected different classes by number, 0 to {known - 1}, or null.")
    if known - len(classes) < 2:
        raise ConfigError(f"{given}: of {known} classes at least 2 are to train on.")
    apart = {split: torch.isin(y.to(torch.int64), torch.tensor([*classes])) for split, (_, y) in pairs.items()}
    test = apart.get("test", apart["train"]).nonzero()[:, 0]
    if "test" not in pairs:
        number = sample_count(test_size, len(test), "test_size")
        if number > len(test):
            raise ConfigError(
                f"dataset.test_size={test_size}: the classes held out have {counted(len(test), 'sample')}. Type "
                f"dataset.test_size={len(test)} for all of them, or a smaller number."
            )
        test = test[torch.randperm(len(test), generator=seeded_generator("held out", seed))[:number].sort().values]
    kept = {split: (~apart[split]).nonzero()[:, 0] for split in pairs if split != "test"}
    found = {split: (pairs[split][0][index], pairs[split][1][index]) for split, index in kept.items()}
    x, y = pairs.get("test", pairs["train"])
    return found | ({"test": (x[test], y[test])} if len(test) else {})
