"""Keys of samples, and fingerprints of splits: equal for equal raw samples, whatever was done to them."""

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


def test_another_split_seed_shares_the_samples_that_both_drew() -> None:
    made = [from_tensors("mine", pair(), task="classification", validation_size=20, split_seed=seed) for seed in (0, 1)]
    train, validation = made[0].sample_keys["train"], made[1].sample_keys["validation"]
    shared = {*made[0].train.x[:, 0].tolist()} & {*made[1].validation.x[:, 0].tolist()}
    assert torch.isin(validation, train).sum() == len(shared) > 0


def test_a_text_has_the_same_splits_under_every_tokenizer() -> None:
    text = "".join(f"{n} bottles of beer on the wall\n" for n in range(400))
    made = [from_text("beer", text, tokenizer=kind, context=8, validation_size=0.2) for kind in ("byte", "character")]
    assert made[0].split_fingerprints == made[1].split_fingerprints
    assert made[0].fingerprint != made[1].fingerprint
    other = from_text("beer", text, tokenizer="byte", context=8, validation_size=0.4)
    assert torch.isin(made[0].sample_keys["train"], other.sample_keys["validation"]).any()
    assert not torch.isin(made[0].sample_keys["train"], made[0].sample_keys["validation"]).any()


def test_samples_read_on_demand_are_known_by_their_numbers() -> None:
    samples = [(torch.randn(3, generator=torch.Generator().manual_seed(n)), n % 2) for n in range(40)]
    made = [
        from_datasets("read", samples, task="classification", classes=2, validation_size=10, split_seed=seed)
        for seed in (0, 1)
    ]
    chosen = [{*split.validation.dataset.index} for split in made]
    assert torch.isin(made[0].sample_keys["validation"], made[1].sample_keys["validation"]).sum() == len(
        chosen[0] & chosen[1]
    )
    assert made[0].split_fingerprints != made[1].split_fingerprints
