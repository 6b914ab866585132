"""Weights of samples, given beside inputs and targets: (x, y, weights)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import in_words, to_tensor
from dlrun.errors import ConfigError, DataError
from dlrun.nests.nest import Nest, size_of


def without_weights(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pairs of the splits, and the weights of those that have some."""
    triples = {split: each for split, each in given.items() if isinstance(each, tuple | list) and len(each) == 3}
    return {**given, **{split: each[:2] for split, each in triples.items()}}, {s: t[2] for s, t in triples.items()}


def weights_of_splits(
    name: str, weights: Mapping[str, Any], pairs: Mapping[str, tuple[Nest, Nest]], index: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights [N] of each split, float32; those of splits cut from the training samples by `index`.

    `pairs` are the samples of each split as given. Raises `DataError` for weights that are negative, not finite, all
    zero, or of another number.
    """
    if not weights:
        return {}
    if missing := sorted(pairs.keys() - weights.keys()):
        raise DataError(
            f"The {in_words(missing[0])} split of `{name}` has no weights, another split has some. Give all of them "
            "weights, such as torch.ones(len(x))."
        )
    found = {split: _checked(name, split, given, size_of(pairs[split])) for split, given in weights.items()}
    return found | {split: found["train"][places] for split, places in index.items() if len(places)}


def refuse_weights(name: str, weights: Mapping[str, Any], option: str) -> None:
    """Raise `ConfigError` for weights beside an option that cannot have them."""
    if weights:
        raise ConfigError(f"dataset.{option}: the samples of `{name}` have weights. Leave one of them out.")


def _checked(name: str, split: str, given: Any, size: int) -> Tensor:
    where = f"The weights of the {in_words(split)} split of `{name}`"
    weight = to_tensor(given, where).to(torch.float32)
    if weight.shape != (size,):
        raise DataError(f"{where} have the shape {list(weight.shape)}; expected [{size}], one for each sample.")
    if not bool(weight.isfinite().all()) or bool((weight < 0).any()) or not bool((weight > 0).any()):
        raise DataError(f"{where} are not all finite and at least 0, with one above 0.")
    return weight
