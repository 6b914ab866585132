"""Augmentation: a pure function of its generator, equal to a loop over the samples."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from dlrun.datasets.tensors.augment import Augment, make_augment
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import Batches
from dlrun.errors import ConfigError


def keyed(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "options", [{"shift": 2}, {"flip": True}, {"crop": 0.5}, {"shift": 1, "flip": True, "crop": 0.8}]
)
def test_it_is_a_pure_function_of_its_generator(options) -> None:
    augment = make_augment(options, (3, 8, 9))
    x = torch.rand(16, 3, 8, 9)
    before = x.clone()
    torch.manual_seed(0)
    one = augment(x, keyed())
    torch.manual_seed(1)
    assert torch.equal(augment(x, keyed()), one)
    assert torch.equal(x, before) and one.shape == x.shape and one.dtype == x.dtype
    assert not torch.equal(augment(x, keyed(6)), one) and not torch.equal(one, x)


def test_each_sample_is_one_of_the_possible_shifts_and_flips() -> None:
    x = torch.rand(200, 2, 6, 7)
    varied = Augment(shift=2, flip=True)(x, keyed())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    seen = set()
    for i in range(len(x)):
        for dy in range(5):
            for dx in range(5):
                part = padded[i, :, dy : dy + 6, dx : dx + 7]
                seen |= {(dy, dx, 0)} if torch.equal(varied[i], part) else set()
                # a sample is mirrored first, then moved: all pairs of the two occur either way
                mirrored = padded[i].flip(-1)[:, dy : dy + 6, dx : dx + 7]
                seen |= {(dy, dx, 1)} if torch.equal(varied[i], mirrored) else set()
    assert len(seen) == 50


def test_flip_mirrors_about_half() -> None:
    x = torch.rand(2000, 1, 2, 2)
    varied = Augment(flip=True)(x, keyed())
    flipped = (varied == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(varied[~flipped], x[~flipped])
    assert 900 < int(flipped.sum()) < 1100


def test_crop_stays_inside_the_image_and_keeps_a_ramp_a_ramp() -> None:
    ramp = torch.linspace(0, 1, 32).expand(50, 1, 32, 32)
    varied = Augment(crop=0.5)(ramp, keyed())
    steps = varied[:, 0, 16].diff(dim=1)[:, 2:-2]
    assert float(varied.min()) >= 0 and float(varied.max()) <= 1 + 1e-6
    assert torch.allclose(steps, steps.mean(1, keepdim=True).expand_as(steps), atol=1e-5)
    side = steps.mean(1) * 31
    assert float(side.min()) >= 0.5 - 1e-4 and float(side.max()) <= 1 + 1e-4 and float(side.std()) > 0.05


def test_nothing_asked_for_is_nothing() -> None:
    assert make_augment(None, (1, 8, 8)) is None and make_augment({}, (1, 8, 8)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shfit": 2}, "Did you mean `shift`"),
        ({"shift": -1}, "shift=-1"),
        ({"shift": 1.5}, "shift=1.5"),
        ({"shift": 8}, "as large as the image of 8×8.*shift=1"),
        ({"flip": 1}, "flip=1"),
        ({"crop": 0}, "crop=0"),
        ({"crop": "x"}, "crop=x"),
    ],
)
def test_what_is_not_valid_is_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_augment(options, (1, 8, 8))


@pytest.mark.parametrize(("fill", "mode"), [("border", "replicate"), ("reflect", "reflect"), ("zero", "constant")])
def test_the_gap_of_a_shift_is_filled_as_by_torch(fill, mode) -> None:
    x = torch.rand(60, 2, 6, 7)
    varied = Augment(shift=2, fill=fill, flip=True)(x, keyed())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode=mode)
    parts = [padded[..., dy : dy + 6, dx : dx + 7] for dy in range(5) for dx in range(5)]
    parts += [part.flip(-1) for part in parts]
    found = torch.stack([(varied == part).flatten(1).all(1) for part in parts])
    assert found.any(0).all() and found.any(1).sum() > 30


def test_an_alternating_flip_shows_each_image_both_ways_in_two_epochs() -> None:
    x = torch.rand(400, 1, 2, 3)
    split = TensorSplit(x, torch.arange(400))
    batches = Batches(split, size=100, seed=3, device=torch.device("cpu"), augment=Augment(flip="alternating"))
    epochs = [torch.empty_like(x) for _ in range(3)]
    for step, batch in enumerate(islice(batches.start(0), 12)):
        epochs[step // 4][batch.y] = batch.x
    mirrored = [(epoch == x.flip(-1)).flatten(1).all(1) for epoch in epochs]
    assert torch.equal(mirrored[0], ~mirrored[1]) and torch.equal(mirrored[0], mirrored[2])
    assert all(torch.equal(epoch[~m], x[~m]) for epoch, m in zip(epochs, mirrored, strict=True))
    assert 150 < int(mirrored[0].sum()) < 250
    resumed = next(batches.start(6))
    assert torch.equal(resumed.x, epochs[1][resumed.y])


@pytest.mark.parametrize(
    "options", [{"flip": "alternate"}, {"fill": "mirror"}, {"fill": "reflect", "shift": 6}, {"shift": True}]
)
def test_what_an_option_cannot_be_is_refused(options) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.augment"):
        make_augment(options, (3, 6, 7))
