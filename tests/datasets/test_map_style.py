"""A user's own map-style data sets."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dlrun.datasets import from_datasets
from dlrun.errors import ConfigError, DataError, RunError


class Squares(Dataset):
    """Sample i is ([i, i²] as numpy doubles, i mod 3)."""

    def __init__(self, n: int = 20, offset: int = 0) -> None:
        self.n, self.offset = n, offset
        self.targets = [i % 3 for i in range(n)]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        return np.array([i + self.offset, i * i], dtype=np.float64), i % 3


class Noisy(Squares):
    """Each reading varies the sample by three libraries' randomness."""

    def __getitem__(self, i: int):
        x, y = super().__getitem__(i)
        return x + random.random() + np.random.rand() + torch.rand(2).numpy(), y


def test_samples_become_batches_in_order() -> None:
    data = from_datasets("mine", Squares(), test=Squares(5), task="classification", validation_size=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 5)
    assert (data.spec.input_shape, data.spec.classes) == ((2,), 3)
    batch = data.test.gather(torch.tensor([4, 1]))
    assert batch.x.tolist() == [[4, 16], [1, 1]] and batch.x.dtype == torch.float32
    assert batch.y.tolist() == [1, 1] and batch.y.dtype == torch.int64
    both = [int(i) for s in (data.train, data.validation) for i in s.gather(torch.arange(len(s))).x[:, 0]]
    assert sorted(both) == list(range(20))


def test_workers_read_what_gather_gives() -> None:
    split = from_datasets("mine", Squares(), task="classification").train
    loader = DataLoader(split.dataset, batch_size=8, num_workers=1)
    for start, (x, y) in zip(range(0, 20, 8), loader, strict=True):
        batch = split.gather(torch.arange(start, min(start + 8, 20)))
        assert torch.equal(batch.x, x) and torch.equal(batch.y, y)


def test_regression_targets_are_columns() -> None:
    data = from_datasets("mine", TensorDataset(torch.rand(6, 2), torch.rand(6).double()), task="regression")
    assert data.train.gather(torch.arange(6)).y.shape == (6, 1) and data.spec.outputs == 1
    assert data.train.gather(torch.arange(2)).y.dtype == torch.float32


def test_random_samples_give_one_fingerprint_and_disturb_no_randomness() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    data = from_datasets("mine", Noisy(), classes=3, task="classification", content="v1")
    assert expected[2] == torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    one = from_datasets("mine", Noisy(), classes=3, task="classification").fingerprint
    assert from_datasets("mine", Noisy(), classes=3, task="classification").fingerprint == one
    assert data.fingerprint != one


def test_random_samples_are_the_same_in_any_portions() -> None:
    class Drawn(Squares):
        def __getitem__(self, i: int):
            return torch.tensor([torch.rand(()), random.random(), np.random.rand()]), 0

    split = from_datasets("mine", Drawn(), task="classification").train
    whole = split.gather(torch.arange(20)).x
    assert torch.equal(torch.cat([split.gather(torch.tensor([i])).x for i in range(20)]), whole)
    assert all(len(column.unique()) == 20 for column in whole.T)


def test_a_fingerprint_is_of_length_split_and_ends() -> None:
    def mark(**options) -> str:
        n, offset = options.pop("n", 20), options.pop("offset", 0)
        return from_datasets("mine", Squares(n, offset), task="classification", **options).fingerprint

    marks = [mark(), mark(n=21), mark(offset=1), mark(validation_size=3), mark(validation_size=3, split_seed=1)]
    assert len({*marks, mark(content="2")}) == 6 and mark() == marks[0]


def test_classes_are_given_named_or_known() -> None:
    pairs = TensorDataset(torch.rand(6, 2), torch.arange(6) % 2)
    assert from_datasets("mine", pairs, task="classification", classes=5).spec.outputs == 5
    assert from_datasets("mine", pairs, task="classification", class_names=["a", "b"]).spec.class_names == ("a", "b")
    with pytest.raises(ConfigError, match="classes=10"):
        from_datasets("mine", pairs, task="classification")


def test_what_is_no_pair_or_no_batch_is_refused() -> None:
    class Bare(Squares):
        def __getitem__(self, i: int):
            return torch.rand(2)

    class Ragged(Squares):
        def __getitem__(self, i: int):
            return torch.rand(i + 1), 0

    with pytest.raises(DataError, match="Bare is a Tensor; expected a pair"):
        from_datasets("mine", Bare(), task="classification")
    ragged = from_datasets("mine", Ragged(), task="classification").train
    with pytest.raises(DataError, match=r"Sample 1 of Ragged, in the training split: .* \[2\]; expected \[1\]"):
        ragged.gather(torch.arange(3))
    with pytest.raises(DataError, match="no training sample"):
        from_datasets("mine", Squares(0), task="classification")


def test_a_sample_that_cannot_be_read_is_named() -> None:
    class Broken(Squares):
        def __getitem__(self, i: int):
            return {}[i] if i == 3 else super().__getitem__(i)

    with pytest.raises(DataError, match="sample 3 of Broken failed: KeyError: 3"):
        from_datasets("mine", Broken(4), task="classification")
    with pytest.raises(RunError, match="sample 3 of Broken failed: KeyError: 3"):
        from_datasets("mine", Broken(9), task="classification", content="1").train.gather(torch.tensor([3]))
