"""Fingerprints of splits: equal for equal raw samples, whatever was done to them."""

from __future__ import annotations

import torch

from dlrun.datasets import from_datasets, from_tensors, from_text
from dlrun.datasets.tensors.sample_keys import sample_keys


def test_keys_tell_rows_apart_as_a_set_of_bytes_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (5000, 7), generator=generator).to(torch.uint8)
    rows = {bytes(row.tolist()) for row in x}
    assert len(sample_keys(x).unique()) == len(rows)


def test_a_bit_in_any_place_of_a_sample_changes_its_key() -> None:
    x = torch.zeros(1 + 24 * 8, 24, dtype=torch.uint8)
    for place in range(24 * 8):
        x[1 + place, place // 8] = 1 << place % 8
    assert len(sample_keys(x).unique()) == len(x)


def pair(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 2


def test_preparation_noise_and_size_of_the_training_split_leave_the_validation_split_the_same() -> None:
    def made(**options):
        return from_tensors("mine", pair(), task="classification", validation_size=20, test_size=10, **options)

    one = made()
    for options in ({"normalise": True}, {"train_size": 10}, {"label_noise": 0.2}, {"augment": None, "scale": 2.0}):
        held_out = {**made(**options).split_fingerprints, "train": None}
        assert held_out == {**one.split_fingerprints, "train": None}
        assert made(**options).fingerprint != one.fingerprint or options == {"augment": None}
    assert made(split_seed=1).split_fingerprints["validation"] != one.split_fingerprints["validation"]


def test_a_text_has_the_same_splits_under_every_tokenizer() -> None:
    text = "".join(f"{n} bottles of beer on the wall\n" for n in range(400))

    def made(kind: str, **options):
        size = {"vocabulary_size": 300} if kind == "bpe" else {}
        return from_text("beer", text, tokenizer=kind, context=8, **({"validation_size": 0.2} | size | options))

    kinds = [made(kind) for kind in ("byte", "character", "word", "bpe")]
    assert len({tuple(data.split_fingerprints.items()) for data in kinds}) == 1
    assert len({data.fingerprint for data in kinds}) == 4
    shorter, other = made("byte", train_size=100), made("byte", validation_size=0.4)
    validation = kinds[0].split_fingerprints["validation"]
    assert shorter.split_fingerprints["validation"] == validation != other.split_fingerprints["validation"]
    assert shorter.split_fingerprints["train"] != kinds[0].split_fingerprints["train"]


def test_samples_read_on_demand_are_known_by_their_numbers() -> None:
    samples = [(torch.randn(3, generator=torch.Generator().manual_seed(n)), n % 2) for n in range(40)]

    def made(**options):
        return from_datasets("read", samples, task="classification", classes=2, validation_size=10, **options)

    validation = made().split_fingerprints["validation"]
    assert made(train_size=5).split_fingerprints["validation"] == validation
    assert made(split_seed=1).split_fingerprints["validation"] != validation
