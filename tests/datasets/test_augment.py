"""Augmentation: a pure function of its generator, equal to a loop over the samples."""

from __future__ import annotations

import pytest
import torch

from dlrun.datasets.tensors.augment import Augment, make_augment
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
        ({"flip": 1}, "flip=1"),
        ({"crop": 0}, "crop=0"),
        ({"crop": "x"}, "crop=x"),
    ],
)
def test_what_is_not_valid_is_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_augment(options, (1, 8, 8))
