"""Batches of tensors and of nests of tensors."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import torch

from dlrun.nests.batch import Batch, plain_batch
from dlrun.nests.nest import map_nest, size_of


class Point(NamedTuple):
    """A nest of the user's own."""

    row: int
    column: int


def test_a_batch_is_a_pair() -> None:
    x, y = Batch(torch.ones(2, 3), torch.zeros(2), weight=torch.ones(2))
    assert (x.shape, y.shape) == ((2, 3), (2,))


def test_weights_and_mask_travel_along() -> None:
    batch = Batch(torch.arange(4.0), torch.arange(4), torch.arange(4) + 1.0, torch.ones(4, 2, dtype=torch.bool))
    for other in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), batch.to("cpu"), batch.rows(slice(None))):
        assert torch.equal(other.weight, batch.weight)
        assert torch.equal(other.mask, batch.mask)
    some = batch.rows(torch.tensor([2, 0]))
    assert some.weight is not None and some.weight.tolist() == [3.0, 1.0]
    assert some.size == 2
    replaced = batch._replace(x=batch.x + 1)
    assert torch.equal(replaced.x, batch.x + 1) and replaced.y is batch.y
    assert replaced.weight is batch.weight and replaced.mask is batch.mask and not replaced.plain


def test_a_nest_keeps_its_form() -> None:
    nest = {"a": Point(1, 2), "b": [3, (4,)]}
    assert map_nest(lambda n: 10 * n, nest) == {"a": Point(10, 20), "b": [30, (40,)]}
    assert size_of({"a": (torch.ones(5, 2), torch.ones(5))}) == 5
    assert [t.item() for t in Batch({"u": torch.tensor(1), "v": (torch.tensor(2),)}, torch.tensor(3)).tensors()] == [
        1,
        2,
        3,
    ]


def test_what_is_plain() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    assert Batch(x, y).plain and plain_batch((x, y)).plain
    assert not any(
        batch.plain for batch in (Batch((x,), y), Batch(x, {"y": y}), Batch(x, y, x), Batch(x, y, mask=x > 0))
    )
