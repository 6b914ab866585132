"""The model of pixels: a probability of all images, causal in one pass, and its samples follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.nll import nll
from dlrun.metrics import for_task
from dlrun.models import autoregressive_pixels
from dlrun.models.autoregressive_pixels import AutoregressivePixels


def pixels(*shape: int, levels: int = 2, blocks: int = 2) -> AutoregressivePixels:
    g = torch.Generator().manual_seed(3)
    model = AutoregressivePixels((1, *shape), levels, channels=4, blocks=blocks, first=5)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=g))
    return model


def all_images(count: int, levels: int) -> Tensor:
    """Every image of `count` pixels, as rows of values from 0 to 1."""
    values = torch.arange(levels) / (levels - 1)
    return torch.cartesian_prod(*[values] * count).view(-1, count)


@pytest.mark.parametrize(("shape", "levels"), [((3, 3), 2), ((2, 3), 3)])
def test_the_probabilities_of_all_images_sum_to_one(shape: tuple[int, int], levels: int) -> None:
    images = all_images(shape[0] * shape[1], levels).view(-1, 1, *shape)
    with torch.no_grad():
        p = pixels(*shape, levels=levels)(images).double().exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(p.max() / p.min()) > 10


@pytest.mark.parametrize("levels", [2, 5])
def test_a_pixel_changes_no_logits_before_the_next(levels: int) -> None:
    model, (height, width) = pixels(6, 7, levels=levels, blocks=4), (6, 7)
    x = torch.randint(levels, (2, 1, height, width), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    with torch.no_grad():
        before = model.logits(x)
        for t in range(height * width):
            other = x.clone()
            other.view(2, -1)[:, t] = 1 - other.view(2, -1)[:, t]
            changed = (model.logits(other) - before).flatten(2).abs().amax((0, 1))
            assert not changed[: t + 1].any()
            if t % width < width - 1 and float(x.view(2, -1)[0, t]) != 0.5:
                assert changed[t + 1] > 0


def test_the_rows_so_far_give_the_logits_of_their_pixels() -> None:
    model, x = pixels(6, 5, blocks=4), torch.rand(3, 1, 6, 5).round()
    with torch.no_grad():
        whole = model.logits(x)
        for row in range(6):
            torch.testing.assert_close(model.logits(x[:, :, : row + 1])[:, :, row], whole[:, :, row])


@pytest.mark.parametrize("levels", [2, 5])
def test_an_evaluation_in_portions_is_that_of_the_whole(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = pixels(4, 3, levels=levels), torch.rand(7, 1, 4, 3)
    whole = model(x).detach()
    monkeypatch.setattr(autoregressive_pixels, "LOGITS", 3 * levels * 12)
    with torch.no_grad():
        torch.testing.assert_close(model(x), whole)
    split = TensorSplit(x, torch.zeros(7))
    options = {"metrics": for_task("density"), "split": split, "device": torch.device("cpu")}
    found = [evaluate(Objective(model, nll), batch_size=size, **options) for size in (1, 3, 7)]  # type: ignore[arg-type]
    for name, value in found[0].items():
        assert [other[name] for other in found] == pytest.approx([value] * 3, rel=1e-6)
    assert {*found[0]} == {"loss", "nll", "bits_per_dimension"}


def test_samples_are_as_frequent_as_they_are_probable() -> None:
    model, n = pixels(2, 2), 20_000
    images = all_images(4, 2).view(-1, 1, 2, 2)
    with torch.no_grad():
        expected = model(images).exp().double().numpy()
    drawn = model.sample(n, torch.Generator().manual_seed(0)).view(n, 4)
    found = np.bincount((drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long().numpy(), minlength=16) / n
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max() / n))


def test_grey_samples_have_the_means_of_the_first_pixel() -> None:
    model = pixels(2, 2, levels=4)
    drawn = model.sample(5000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = model.logits(torch.zeros(1, 1, 2, 2))[0, :, 0, 0].softmax(0)
    found = torch.bincount((3 * drawn[:, 0, 0, 0]).round().long(), minlength=4) / 5000
    torch.testing.assert_close(found, p, atol=0.03, rtol=0)


def test_other_pixels_are_taken_as_the_nearest_level() -> None:
    model, x = pixels(3, 3), torch.rand(4, 1, 3, 3)
    torch.testing.assert_close(model(x), model(x.round()))
    beyond = torch.where(x < 0.5, x - 3, x + 2)
    torch.testing.assert_close(model(beyond), model(x.round()))
    grey = pixels(3, 3, levels=5)
    torch.testing.assert_close(grey(beyond), grey(x.round()))


@pytest.mark.parametrize(
    ("shape", "levels", "options", "says"),
    [
        ((3, 8, 8), 256, {}, "3 channels"),
        ((1, 8, 8), None, {}, r"dataset\.binarise=threshold"),
        ((2,), None, {}, "needs images"),
        ((1, 8, 8), 2, {"first": 4}, "odd first kernel"),
        ((1, 8, 8), 2, {"dilations": [0]}, "dilations"),
    ],
)
def test_what_it_cannot_model_is_refused(
    shape: tuple[int, ...], levels: int | None, options: dict[str, int], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        AutoregressivePixels(shape, levels, **options)  # type: ignore[arg-type]
