"""Binary pixels: by a threshold, or drawn with the grey level as the probability."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from dlrun.datasets import from_tensors
from dlrun.datasets.digits import digits
from dlrun.datasets.tensors.binarise import binarise
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data


def training(data: Data) -> torch.Tensor:
    return cast("TensorSplit", data.train).x


def test_a_threshold_is_the_middle_between_black_and_white() -> None:
    grey, black = digits(normalise=False), digits(binarise="threshold")
    assert torch.equal(training(black), (training(grey) > 0.5).float())
    assert (grey.spec.levels, black.spec.levels, digits().spec.levels) == (17, 2, None)


def test_a_draw_has_the_grey_levels_as_its_means() -> None:
    grey, drawn = digits(normalise=False), digits(binarise="stochastic")
    assert {*training(drawn).unique().tolist()} == {0.0, 1.0}
    torch.testing.assert_close(training(drawn).mean(0), training(grey).mean(0), atol=0.07, rtol=0)
    certain = (training(grey) == 0) | (training(grey) == 1)
    assert torch.equal(training(drawn)[certain], training(grey)[certain])


def test_an_image_has_its_pixels_whatever_the_sizes_of_the_splits() -> None:
    whole = digits(binarise="stochastic", validation_size=0, test_size=0)
    some = digits(binarise="stochastic", validation_size=200, test_size=300)
    rows = {tuple(row) for row in training(whole).flatten(1).tolist()}
    assert all(tuple(row) in rows for row in training(some).flatten(1).tolist())
    # drawn by the seed of the splits
    other = digits(binarise="stochastic", validation_size=0, test_size=0, split_seed=1)
    assert not torch.equal(training(other), training(whole))


def test_each_way_is_another_data_set() -> None:
    sets = [digits(normalise=False), *(digits(binarise=how) for how in ("threshold", "stochastic"))]  # type: ignore[arg-type]
    assert len({data.fingerprint for data in sets}) == 3
    assert len({data.split_fingerprints["validation"] for data in sets}) == 3
    # what the weights have seen is found by the images of the files
    assert all(torch.equal(data.sample_keys["train"].values, sets[0].sample_keys["train"].values) for data in sets)
    assert digits(binarise="threshold", normalise=False).fingerprint == sets[1].fingerprint


def test_a_draw_depends_on_its_purpose_and_place() -> None:
    x = torch.randint(256, (50, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = binarise(x, "stochastic", pixels=(0.0, 255.0), purpose="train", seed=0)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, binarise(x, "stochastic", pixels=(0.0, 255.0), purpose="train", seed=0))
    assert not torch.equal(whole, binarise(x, "stochastic", pixels=(0.0, 255.0), purpose="test", seed=0))


def test_a_density_needs_no_targets() -> None:
    data = from_tensors("mine", (torch.rand(10, 2), None), task="density", validation_size=2)
    assert (data.spec.task, data.spec.input_shape, len(data.train)) == ("density", (2,), 8)
    with pytest.raises(DataError, match="targets"):
        from_tensors("mine", (torch.rand(10, 2), None), task="regression")


def test_without_black_and_white_it_is_refused() -> None:
    pair = (torch.rand(10, 1, 4, 4), torch.zeros(10).long())
    with pytest.raises(ConfigError, match="pixels="):
        from_tensors("mine", pair, task="classification", binarise="threshold")
