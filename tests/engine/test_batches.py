"""Batches are a function of (data, seed, step)."""

from __future__ import annotations

import random
from itertools import chain, islice

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dlrun.datasets.samples.on_demand import MapStyleSplit
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import Batches, ClassBalance
from dlrun.types import Batch

CPU = torch.device("cpu")


def split(n: int = 23) -> TensorSplit:
    return TensorSplit(torch.arange(n, dtype=torch.float32)[:, None], torch.arange(n))


def batches(**options: object) -> Batches:
    return Batches(**{"split": split(), "size": 5, "seed": 3, "device": CPU} | options)  # type: ignore[arg-type]


def ids(found: list[Batch]) -> list[list[int]]:
    return [batch.y.tolist() for batch in found]


def test_an_epoch_has_every_sample_once_and_each_epoch_its_own_order() -> None:
    run = batches()
    assert run.per_epoch == 5
    first, second = ids(list(islice(run.start(0), 5))), ids(list(islice(run.start(5), 5)))
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(23))
    assert first != second


def test_starting_at_a_step_gives_what_an_uninterrupted_run_sees() -> None:
    whole = ids(list(islice(batches().start(0), 20)))
    for step in (1, 4, 5, 13):
        assert ids(list(islice(batches().start(step), 20 - step))) == whole[step:]


def test_the_seed_decides_the_order() -> None:
    assert ids(list(islice(batches(seed=4).start(0), 5))) != ids(list(islice(batches().start(0), 5)))
    assert ids(list(islice(batches().start(0), 5))) == ids(list(islice(batches().start(0), 5)))


def test_drop_last_leaves_the_rest_out() -> None:
    run = batches(drop_last=True)
    assert run.per_epoch == 4
    assert [len(b.x) for b in islice(run.start(0), 8)] == [5] * 8


def test_a_batch_of_the_whole_split_is_in_its_own_order() -> None:
    found = list(islice(batches(size=23).start(0), 2))
    assert ids(found) == [list(range(23))] * 2


def test_only_repeats_the_first_batches() -> None:
    found = ids(list(islice(batches(only=2).start(0), 6)))
    assert found[:2] == found[2:4] == found[4:]
    assert ids(list(islice(batches(only=2).start(3), 3))) == found[3:]


def jitter(x: Tensor, draw: torch.Generator) -> Tensor:
    return x + torch.rand(x.shape, generator=draw)


def test_augmentation_is_a_function_of_the_step() -> None:
    whole = [b.x for b in islice(batches(augment=jitter).start(0), 12)]
    resumed = [b.x for b in islice(batches(augment=jitter).start(7), 5)]
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], resumed, strict=True))
    assert not torch.equal(batches().start(0).__next__().x, whole[0])


class Noisy(Dataset[tuple[Tensor, int]]):
    """A user's own data set, with randomness of its own."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([torch.rand(()), random.random(), np.random.rand()]), index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_data_set_gives_the_same_batches_from_any_step(workers: int) -> None:
    def run(step: int, n: int) -> list[Batch]:
        return list(islice(batches(split=MapStyleSplit(Noisy()), workers=workers).start(step), n))

    whole = run(0, 12)
    assert ids(whole) == ids(list(islice(batches().start(0), 12)))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[7:], run(7, 5), strict=True))
    # another epoch, another draw for the same sample
    by_sample = [
        {i: x for b in part for i, x in zip(b.y.tolist(), b.x, strict=True)} for part in (whole[:5], whole[5:10])
    ]
    assert all(a != b for a, b in zip(by_sample[0][0], by_sample[1][0], strict=True))


def test_gathering_several_batches_at_once_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(number: int, step: int) -> list[Batch]:
        monkeypatch.setattr("dlrun.engine.batches.MOST", number)
        split = TensorSplit(torch.arange(23.0)[:, None], torch.arange(23))
        return list(islice(Batches(split, size=5, seed=3, device=torch.device("cpu")).start(step), 17))

    for step in (0, 3, 4, 11):
        one, many = first(1, step), first(32, step)
        assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(one, many, strict=True))


def balanced(**options: object) -> Batches:
    """Batches of 2 of 3 classes, with 4 samples of each, of 4 to 9 samples of a class."""
    y = torch.tensor([0] * 9 + [1] * 6 + [2] * 4 + [0] * 4)
    places = tuple((y == number).nonzero()[:, 0] for number in range(3))
    given = {"split": TensorSplit(torch.arange(23), y), "balance": ClassBalance(places, classes=2, each=4)}
    return batches(size=8, drop_last=True, **given | options)


def test_a_balanced_batch_has_equally_many_samples_of_some_classes() -> None:
    seen = set()
    for batch in islice(balanced().start(0), 200):
        assert len(batch.x) == len(set(batch.x.tolist())) == 8
        counts = batch.y.bincount(minlength=3).tolist()
        assert sorted(counts) == [0, 4, 4]
        seen.add(tuple(counts))
    assert len(seen) == 3  # every pair of classes
    assert balanced().per_epoch == 2
    assert balanced().seen(5) == 40


def test_a_balanced_class_goes_through_its_samples_before_it_repeats_any() -> None:
    order = ClassBalance((torch.arange(12),), classes=1, each=4).order(6, torch.Generator().manual_seed(1))
    for each in order.view(2, 12):
        assert sorted(each.tolist()) == [*range(12)]


def test_balanced_batches_are_a_function_of_the_step() -> None:
    def samples(made: Batches, step: int, steps: int) -> list[list[int]]:
        return [batch.x.tolist() for batch in islice(made.start(step), steps)]

    through = samples(balanced(), 0, 9)
    assert samples(balanced(), 5, 4) == through[5:]
    assert samples(balanced(seed=1), 0, 9) != through
    assert [index.tolist() for index in balanced().indices(1)] == through[2:4]
