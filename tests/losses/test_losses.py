"""Losses against numpy, and what they say of data that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.losses.nll import nll
from dlrun.models.gaussian_mixture import GaussianMixture
from dlrun.types import IGNORE_INDEX, Batch, Loss

same = nn.Identity()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def softmax_nll(scores: np.ndarray, y: np.ndarray, smoothing: float) -> np.ndarray:
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    right = np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    return -(1 - smoothing) * right - smoothing * log_p.mean(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(7,), (3, 5)])
def test_cross_entropy_is_the_negative_log_likelihood(shape: tuple[int, ...], smoothing: float) -> None:
    scores, y = draw(*shape, 4), torch.arange(int(np.prod(shape))).reshape(shape) % 4
    with torch.no_grad():
        values = cross_entropy(same, Batch(scores, y), label_smoothing=smoothing)
    assert values.shape == y.shape
    np.testing.assert_allclose(values.numpy(), softmax_nll(scores.numpy(), y.numpy(), smoothing), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("components", [(), (3,), (2, 2)])
def test_mse_is_the_mean_over_the_components(components: tuple[int, ...]) -> None:
    x, y = draw(6, *components), draw(6, *components) + 1
    with torch.no_grad():
        values = mse(same, Batch(x, y))
    assert values.shape == (6,)
    np.testing.assert_allclose(values.numpy(), ((x - y).numpy() ** 2).reshape(6, -1).mean(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "batch"),
    [(cross_entropy, Batch(draw(9, 4), torch.arange(9) % 4)), (mse, Batch(draw(9, 3), draw(9, 3) * 2))],
)
def test_the_mean_of_training_is_the_mean_of_the_values(loss: Loss, batch: Batch) -> None:
    with torch.no_grad():
        values = loss(same, batch)
    mean = loss(same, batch)
    assert mean.ndim == 0
    torch.testing.assert_close(mean, values.mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_that_are_not_predicted_have_no_part(smoothing: float) -> None:
    scores, y, hidden = draw(9, 4), torch.arange(9) % 4, torch.arange(9) % 3 == 1
    some = Batch(scores, y.masked_fill(hidden, IGNORE_INDEX))
    with torch.no_grad():
        values = cross_entropy(same, some, label_smoothing=smoothing)
        alone = cross_entropy(same, Batch(scores[~hidden], y[~hidden]), label_smoothing=smoothing)
    assert not values[hidden].any()
    torch.testing.assert_close(values[~hidden], alone)
    torch.testing.assert_close(cross_entropy(same, some, label_smoothing=smoothing), alone.mean())


class Lengths(nn.Module):
    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.square().sum(1, keepdim=self.keepdim)


def test_nll_asks_for_the_density_of_the_inputs_alone() -> None:
    x = draw(6, 3)
    values = [nll(Lengths(), Batch(x, y)) for y in (torch.arange(6), torch.full((6,), IGNORE_INDEX), draw(6, 2))]
    np.testing.assert_allclose(values[0].numpy(), np.square(x.numpy()).sum(1), rtol=1e-6)
    assert all(torch.equal(values[0], other) for other in values)
    for model, told in ((same, "Identity.*has none"), (Lengths(keepdim=True), r"returned \[6, 1\] for 6 samples")):
        with pytest.raises(ConfigError, match=told):
            nll(model, Batch(x, torch.arange(6)))


def test_a_density_with_a_loss_of_classes_is_told_its_own() -> None:
    with pytest.raises(ConfigError, match="type loss=nll"):
        cross_entropy(GaussianMixture((3,)), Batch(draw(4, 3), torch.zeros(4, dtype=torch.int64)))


def test_narrow_class_numbers_are_taken() -> None:
    wide, narrow = torch.arange(5), torch.arange(5, dtype=torch.uint8)
    assert torch.equal(cross_entropy(same, Batch(draw(5, 5), narrow)), cross_entropy(same, Batch(draw(5, 5), wide)))


@pytest.mark.parametrize(
    ("loss", "x", "y", "says"),
    [
        (cross_entropy, draw(4, 3), draw(4, 1), r"float32 \[4, 1\].*type loss=mse"),
        (cross_entropy, draw(4), torch.zeros(4, dtype=torch.int64), r"expected logits of shape \[4, 'classes'\]"),
        (cross_entropy, draw(4, 1), torch.zeros(4, dtype=torch.int64), "at least 2 classes"),
        (cross_entropy, draw(4, 3), torch.zeros(5, dtype=torch.int64), "expected logits"),
        (mse, draw(4, 3), torch.zeros(4, dtype=torch.int64), r"int64 \[4\].*type loss=cross_entropy"),
        (mse, draw(4, 1), draw(4), "broadcasting"),
        (mse, draw(4, 1), draw(4, 3), "expected the same shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(loss: Loss, x: Tensor, y: Tensor, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        loss(same, Batch(x, y))


def test_a_smoothing_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing=1\.5"):
        cross_entropy(same, Batch(draw(4, 3), torch.zeros(4, dtype=torch.int64)), label_smoothing=1.5)
