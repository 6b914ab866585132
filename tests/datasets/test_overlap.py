"""Samples that splits share: counted as sets of bytes and of strings count them."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, random_split

from dlrun.datasets import from_datasets, from_tensors, from_text
from dlrun.datasets.language import passage_keys as passages
from dlrun.datasets.language.corpus import Passage, StringText
from dlrun.datasets.language.from_text import from_tokens
from dlrun.datasets.tensors.overlap import count_shared, shared_by, union
from dlrun.datasets.tensors.sample_keys import sample_keys, thin
from dlrun.types import Data, SampleKeys


def shared(data: Data) -> dict[str, int]:
    return {pair: count for pair, (count, _) in shared_by(data.sample_keys).items()}


def rows(seed: int, n: int, values: int) -> torch.Tensor:
    return torch.randint(0, values, (n, 3), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("seed", range(5))
def test_the_shared_samples_of_tensors_are_those_of_sets_of_rows(seed: int) -> None:
    splits = [(rows(10 * seed + i, n, 6), torch.arange(n) % 2) for i, n in enumerate((200, 50, 80))]
    train, validation, test = ([tuple(row) for row in x.tolist()] for x, _ in splits)
    expected = {
        "validation in training": sum(row in {*train} for row in validation),
        "test in training": sum(row in {*train} for row in test),
        "test in validation": sum(row in {*validation} for row in test),
    }
    assert shared(from_tensors("mine", *splits, task="classification")) == {k: v for k, v in expected.items() if v}


def test_a_cut_of_different_samples_shares_none_whatever_its_seed() -> None:
    pair = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 2
    cuts = [
        from_tensors("mine", pair, task="classification", validation_size=20, test_size=30, split_seed=seed)
        for seed in range(3)
    ]
    assert [shared(data) for data in cuts] == [{}, {}, {}]
    everything = [union(*data.sample_keys.values()).values.tolist() for data in cuts]
    assert everything[0] == everything[1] == everything[2] and len(everything[0]) == 100


def test_thinned_keys_estimate_what_all_keys_count() -> None:
    # the samples are numbers: 60,000 of 200,000 are shared
    one, other = (sample_keys(torch.arange(a, b)[:, None]) for a, b in ((0, 200_000), (140_000, 340_000)))
    assert count_shared(thin(one, most=1 << 20), thin(other, most=1 << 20)) == 60_000
    for most in (1 << 12, 1 << 14):
        few, many = thin(one, most=most), thin(other, most=2 * most)
        assert len(few.values) <= 1.2 * most and few.total == 200_000
        expected = 60_000 / few.one_in
        found = count_shared(few, many) / few.one_in
        # six standard deviations of a binomial count
        assert abs(found - expected) < 6 * expected**0.5
    joined = union(thin(one, most=1 << 12), thin(other, most=1 << 14), most=1 << 12)
    assert len(joined.values) <= 1 << 12 and abs(joined.total - 340_000) < 0.1 * 340_000


WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "lnrst"]


def prose(seed: int, characters: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choices(WORDS, k=characters // 4 + 1))[:characters]


def windows(text: str) -> set[str]:
    return {text[i : i + passages.WINDOW] for i in range(len(text) - passages.WINDOW + 1)}


def test_the_windows_of_a_text_are_those_of_a_set_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    common = prose(0, 700)
    one, other = prose(1, 900) + common + prose(2, 50), prose(3, 77) + common + "é — ☃" + prose(4, 400)
    expected = sum(other[i : i + passages.WINDOW] in windows(one) for i in range(len(other) - passages.WINDOW + 1))
    assert expected == 700 - passages.WINDOW + 1
    # pieces and portions of any length: a window may lie across them
    for step in (7, passages.WINDOW, 1000):
        monkeypatch.setattr(passages, "_STEP", step)
        monkeypatch.setattr("dlrun.datasets.language.corpus.PIECE", 100)
        keys = [passages.passage_keys(Passage.whole(StringText(text))) for text in (one, other)]
        assert count_shared(keys[1], keys[0]) == expected
        assert keys[0].total == len(one) - passages.WINDOW + 1


def test_a_text_cut_anew_shares_what_its_parts_have_in_common() -> None:
    text = prose(0, 20_000)
    one = from_text("mine", text, validation_size=0.1, test_size=0.1, context=8)
    other = from_text("mine", text, validation_size=0.1, test_size=0.4, context=8, tokenizer="byte")
    assert shared(one) == shared(other) == {}
    # the first trained on 0.0 to 0.8, the second is tested on 0.6 to 1.0
    found = count_shared(other.sample_keys["test"], one.sample_keys["train"])
    assert found == 4000 - passages.WINDOW + 1
    assert count_shared(other.sample_keys["train"], one.sample_keys["test"]) == 0
    # of the training text only its beginning was read
    short = from_text("mine", text, validation_size=0.1, test_size=0.1, context=8, train_size=1000)
    assert short.sample_keys["train"].total == 1000 - passages.WINDOW + 1


def test_long_texts_are_cached_and_thinned(monkeypatch: pytest.MonkeyPatch, here: object) -> None:
    monkeypatch.setattr(passages, "LONG", 1000)
    monkeypatch.setattr(passages, "MOST", 512)
    text = StringText(prose(0, 30_000))
    train, test = Passage(text, 0, 20_000), Passage(text, 12_000, 30_000)
    keys = passages.passage_keys(train)
    assert keys.one_in == 64 and keys.total == 20_000 - passages.WINDOW + 1
    estimate = count_shared(passages.passage_keys(test), keys)
    assert abs(estimate - 8000) < 6 * (8000 * 64) ** 0.5
    monkeypatch.setattr(passages, "_hash", None)
    again = passages.passage_keys(train)
    assert torch.equal(again.values, keys.values) and again.total == keys.total


def test_tokens_without_a_text_have_keys_of_their_windows() -> None:
    tokens = torch.randint(0, 50, (2000,), generator=torch.Generator().manual_seed(0))
    data = from_tokens("mine", tokens[:1200], None, tokens[1000:], context=8)
    assert shared(data) == {"test in training": 200 - passages.WINDOW + 1}


class Read(Dataset):
    """Samples made on demand; `reads` counts them."""

    def __init__(self, n: int, offset: int = 0) -> None:
        self.n, self.offset, self.reads = n, offset, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.reads += 1
        return torch.full((2,), float(i + self.offset)), i % 2


def test_map_style_splits_are_known_by_their_numbers_and_hardly_read() -> None:
    whole = Read(1000)
    train, test = random_split(whole, [700, 300], generator=torch.Generator().manual_seed(0))
    data = from_datasets("mine", train, test=test, task="classification", classes=2, validation_size=100)
    assert shared(data) == {} and whole.reads < 50
    # the classical mistake: a part of the training data as its test
    overlapping = Subset(whole, [*test.indices[:250], *train.indices[:50]])
    data = from_datasets("mine", train, test=overlapping, task="classification", classes=2)
    assert shared(data) == {"test in training": 50}
    assert shared(from_datasets("mine", whole, test=Read(1000), task="classification", classes=2)) == {
        "test in training": 1000
    }
    assert shared(from_datasets("mine", whole, test=Read(1000, 5), task="classification", classes=2)) == {}


class Partly(Read):
    """Its first samples cannot be read, and its last ones are padding."""

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if i < 10:
            raise OSError("damaged")
        return super().__getitem__(i) if i < self.n - 10 else (torch.zeros(2), 0)


def test_what_a_part_leaves_out_is_not_read_and_padding_makes_no_two_data_sets_one() -> None:
    train, test = (Subset(Partly(100, offset), range(10, 100)) for offset in (0, 500))
    options = {"task": "classification", "classes": 2}
    assert shared(from_datasets("mine", train, test=test, **options)) == {}
    again = Subset(Partly(100), range(10, 100))
    assert shared(from_datasets("mine", train, test=again, **options)) == {"test in training": 90}


def test_tensors_of_a_map_style_data_set_are_compared_by_their_values() -> None:
    x, y = rows(0, 100, 1000), torch.arange(100) % 2
    train, test = TensorDataset(x[:80], y[:80]), TensorDataset(x[60:], y[60:])
    data = from_datasets("mine", train, test=test, task="classification", classes=2)
    assert shared(data) == {"test in training": 20}


def test_keys_of_one_split_alone_are_no_overlap() -> None:
    assert shared_by({"train": SampleKeys(torch.arange(3), 3)}) == {}
