"""Values of a user's own parts in a checkpoint: read back as they were."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy
import pytest
import torch

from dlrun.engine.own.encoding import decode, encode, mark

VALUES: list[Any] = [
    {"a": [1, (2.5, None)], 3: {4}},
    deque([1, 2], maxlen=3),
    numpy.arange(6).reshape(2, 3),
    numpy.float32(0.5),
    torch.arange(3),
    b"text",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_read_back_from_a_checkpoint(value: Any) -> None:
    file = BytesIO()
    torch.save(encode(value), file)
    file.seek(0)
    read = decode(torch.load(file, weights_only=True), value)
    assert mark(read) == mark(value)


@pytest.mark.parametrize(
    "make",
    [
        random.Random,
        numpy.random.default_rng,
        numpy.random.RandomState,
        lambda seed: torch.Generator().manual_seed(seed),
    ],
)
def test_a_generator_goes_on_where_it_was(make: Callable[[int], Any]) -> None:
    one, other = make(1), make(2)
    file = BytesIO()
    torch.save(encode(one), file)
    file.seek(0)
    assert mark(one) != mark(other)
    decode(torch.load(file, weights_only=True), other)
    assert mark(one) == mark(other)
