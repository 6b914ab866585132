"""Metrics against numpy, and the same for any portions."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun import metrics
from dlrun.errors import ConfigError
from dlrun.losses import distances
from dlrun.types import IGNORE_INDEX, Batch, Metric, Outputs

same = nn.Identity()
g = torch.Generator().manual_seed(2)
SCORES, CLASSES = torch.randn(101, 6, generator=g), torch.randint(6, (101,), generator=g)
OUTPUTS, TARGETS = torch.randn(101, 3, generator=g), torch.randn(101, 3, generator=g)

CLASSIFIED = Batch(SCORES, CLASSES)
REGRESSED = Batch(OUTPUTS, TARGETS)


def mean(metric: Metric, batch: Batch, portion: int) -> float:
    total, count = 0.0, 0
    for x, y in zip(batch.x.split(portion), batch.y.split(portion), strict=True):
        part, n = metric(same, Batch(x, y))
        assert isinstance(part, Tensor)
        assert part.dtype == torch.float64
        total, count = total + float(part), count + int(n)
    return total / count


def expected() -> dict[str, tuple[Metric, Batch, float]]:
    scores, y = SCORES.double().numpy(), CLASSES.numpy()
    right = scores.argmax(1) == y
    rank = (scores > scores[np.arange(len(y)), y][:, None]).sum(1)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return {
        "accuracy": (metrics.accuracy, CLASSIFIED, right.mean()),
        "error": (metrics.error, CLASSIFIED, 1 - right.mean()),
        "top_k": (partial(metrics.top_k, k=2), CLASSIFIED, (rank < 2).mean()),
        "nll": (metrics.nll, CLASSIFIED, -log_p[np.arange(len(y)), y].mean()),
        "mse": (metrics.mse, REGRESSED, ((OUTPUTS - TARGETS).double().numpy() ** 2).mean()),
    }


@pytest.mark.parametrize("name", list(expected()))
def test_a_metric_is_exact_for_any_portions(name: str) -> None:
    metric, batch, value = expected()[name]
    found = [mean(metric, batch, portion) for portion in (1, 7, 101)]
    assert found == pytest.approx([value] * 3, rel=1e-6)
    assert len({f"{f:.6g}" for f in found}) == 1


def test_tokens_count_one_by_one() -> None:
    scores, y = SCORES[:100].view(20, 5, 6), CLASSES[:100].view(20, 5)
    for metric in (metrics.accuracy, metrics.error, metrics.nll, partial(metrics.top_k, k=3)):
        total, count = metric(same, Batch(scores, y))
        flat, n = metric(same, Batch(SCORES[:100], CLASSES[:100]))
        assert count == n == 100
        assert float(total) == pytest.approx(float(flat), rel=1e-12)


def test_tokens_that_are_not_predicted_do_not_count() -> None:
    hidden = torch.arange(101) % 3 == 1
    y = CLASSES.masked_fill(hidden, IGNORE_INDEX)
    for metric in (metrics.accuracy, metrics.error, metrics.nll, partial(metrics.top_k, k=3)):
        found, count = metric(same, Batch(SCORES, y))
        alone, n = metric(same, Batch(SCORES[~hidden], CLASSES[~hidden]))
        assert int(count) == int(n) == int((~hidden).sum())
        assert float(found) == pytest.approx(float(alone), rel=1e-12)


def test_every_task_has_its_metrics() -> None:
    assert list(metrics.for_task("classification")) == ["accuracy", "error"]
    assert list(metrics.for_task("regression")) == ["mse"]
    assert "nll" in metrics.for_task("language")
    assert list(metrics.for_task("density")) == ["nll", "bits_per_dimension"]


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    assert metrics.derive({"nll": 2.0, "loss": 3.0}) == {"perplexity": pytest.approx(math.exp(2.0))}
    assert metrics.derive({"nll": 1e4}) == {"perplexity": math.inf}
    assert metrics.derive({"loss": 1.0}) == {}
    assert metrics.derive({"nll": 2.0}, of_density=True) == {}


class Normal(nn.Module):
    def log_prob(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(0.5, 2.0).log_prob(x).sum(1)


def test_a_density_is_measured_in_nats_a_sample_and_in_bits_a_dimension() -> None:
    x = SCORES.double().numpy()
    nats = (np.square((x - 0.5) / 2.0) / 2 + np.log(2.0) + np.log(2 * np.pi) / 2).sum(1).mean()
    for metric, expected in ((metrics.density_nll, nats), (metrics.bits_per_dimension, nats / 6 / np.log(2))):
        total, count = metric(Normal(), CLASSIFIED)
        assert float(total) / int(count) == pytest.approx(expected, rel=1e-6)


def test_bits_per_byte_follow_from_the_mean_and_the_bytes_of_a_token() -> None:
    found = metrics.derive({"nll": 3.0}, bytes_per_token=4.0)
    assert found["bits_per_byte"] == pytest.approx(3.0 / 4.0 / math.log(2))
    assert metrics.derive({"loss": 1.0}, bytes_per_token=4.0) == {}


def test_more_places_than_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="k=7"):
        metrics.top_k(same, CLASSIFIED, k=7)


@pytest.mark.parametrize("classes", [6, metrics.MANY])
def test_the_highest_score_is_where_argmax_finds_it(classes: int) -> None:
    scores = torch.randn(50, 3, classes, generator=torch.Generator().manual_seed(1)).mul(2).round()  # many are equal
    scores[0], scores[1, 0, 5], scores[2] = 0.0, math.nan, math.inf
    for y in (
        scores.argmax(-1),
        scores.flip(-1).argmax(-1),
        torch.full((50, 3), IGNORE_INDEX),
        torch.zeros(50, 3).long(),
    ):
        assert torch.equal(metrics.correct(scores, y), scores.argmax(-1) == y)


def test_recall_at_1_and_votes_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

    x, y, train = OUTPUTS[:60], CLASSES[:60], Outputs(OUTPUTS[60:], CLASSES[60:])
    _, places = NearestNeighbors(n_neighbors=2).fit(x.numpy()).kneighbors(x.numpy())
    expected = (y.numpy()[places[:, 1]] == y.numpy()).mean()
    assert float(metrics.recall_at_1(x, y)) == float(metrics.recall_at_1_of_inputs(y, y, inputs=x)) == expected
    for k in (1, 4, 7):
        votes = KNeighborsClassifier(k, algorithm="brute").fit(train.outputs.numpy(), train.y.numpy())
        assert float(metrics.knn_accuracy(x, y, train=train, k=k)) == votes.score(x.numpy(), y.numpy())


def test_neighbours_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distances.nearest(OUTPUTS), distances.nearest(OUTPUTS, OUTPUTS[:40], k=3)
    monkeypatch.setattr(distances, "ENTRIES", 7 * 40)
    assert all(map(torch.equal, whole, (distances.nearest(OUTPUTS), distances.nearest(OUTPUTS, OUTPUTS[:40], k=3))))


def test_a_sample_alone_in_its_class_does_not_count() -> None:
    x = torch.tensor([[0.0], [1.0], [5.0], [6.0], [6.5]])
    assert float(metrics.recall_at_1(x, torch.tensor([0, 0, 1, 2, 2]))) == 1
    assert math.isnan(float(metrics.recall_at_1(x, torch.arange(5))))
    assert math.isnan(float(metrics.recall_at_1(x[:1], torch.arange(1))))


def test_distances_of_normalised_outputs_are_those_of_directions() -> None:
    x, y = torch.tensor([[1.0, 0.1], [9.0, 0.0], [0.1, 1.0], [0.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    assert float(metrics.recall_at_1(x, y)) == 0.5  # the long ones are nearest to the other class's short one
    assert float(metrics.recall_at_1(x, y, normalise=True)) == 1
