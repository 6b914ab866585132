"""Padded classes of one target among several, and weights of samples, in losses of entries and in sums."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import evaluate
from dlrun.engine.meters import LossMeter
from dlrun.engine.objective import Objective
from dlrun.engine.state import State
from dlrun.errors import NonFinite
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries
from dlrun.losses.of_outputs.of_outputs import OfOutputs
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.penalties import l2
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.runs.measures.loss import terms_of
from dlrun.types import IGNORE_INDEX, Batch, Loss, Update

N, T = 11, 6
CPU = torch.device("cpu")


class Heads(nn.Module):
    """Tags of two kinds for each token: classes last, and on axis 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": self.a(x), "b": self.b(x).movedim(-1, 1)}


def drawn() -> Batch:
    """Sequences of 1 to 6 tokens, padded, with weights."""
    g = torch.Generator().manual_seed(0)
    padding = torch.arange(T) > torch.randint(T, (N, 1), generator=g)
    y = {
        name: torch.randint(classes, (N, T), generator=g).masked_fill(padding, IGNORE_INDEX)
        for name, classes in (("a", 4), ("b", 2))
    }
    return Batch(torch.randn(N, T, 3, generator=g), y, torch.rand(N, generator=g))


def mean(logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """By hand: Σ w·v / Σ w over the tokens that count."""
    values = F.cross_entropy(logits, y, ignore_index=IGNORE_INDEX, reduction="none")
    weights = (y != IGNORE_INDEX) * (torch.ones(N) if weight is None else weight)[:, None]
    return (values * weights).sum() / weights.sum()


def per_token(outputs: Tensor, y: Tensor) -> Tensor:
    """A user's, of any value where nothing counts."""
    return F.cross_entropy(outputs, y.clamp(min=0), reduction="none")


A = OfEntries(cross_entropy, "a", "a")
B = OfEntries(TorchLoss("cross_entropy", {}), "b", "b")
OWN = OfEntries(OfOutputs(per_token), "b", "b")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "terms", [{"a": A}, {"b": B}, {"b": OWN}, {"a": A, "b": B, "l2": l2}], ids=["ours", "torch", "own", "sum"]
)
def test_a_step_and_an_evaluation_take_the_same_mean(terms: dict[str, Loss], weighted: bool) -> None:
    model, batch = Heads(), drawn()
    if not weighted:
        batch = Batch(*batch)
    loss = WeightedSum(terms, {"l2": 0.3}) if "l2" in terms else next(iter(terms.values()))
    objective, out = Objective(model, loss), model(batch.x)
    each: dict[str, Tensor] = {
        "a": mean(out["a"].movedim(-1, 1), batch.y["a"], batch.weight),
        "b": mean(out["b"], batch.y["b"], batch.weight),
        "l2": l2(model, batch),  # type: ignore[dict-item]
    }
    expected = sum((0.3 if name == "l2" else 1.0) * each[name] for name in terms)
    assert objective(batch).item() == approx(expected.item(), rel=1e-6)  # type: ignore[union-attr]
    split = TensorSplit(batch.x, batch.y, batch.weight)
    for size in (1, 4, N):
        found = evaluate(objective, terms_of(objective), split, batch_size=size, device=CPU)
        wanted = {"loss": expected, **({f"loss_{name}": each[name] for name in terms} if len(terms) > 1 else {})}
        assert found == approx({name: value.item() for name, value in wanted.items()}, rel=1e-6)  # type: ignore[union-attr]


def test_a_batch_without_any_weight_changes_nothing() -> None:
    model, batch = nn.Linear(3, 2), Batch(torch.randn(4, 3), torch.arange(4) % 2, torch.zeros(4))
    objective = Objective(model, partial(cross_entropy, label_smoothing=0.1))
    loss, weight = objective.weighed(batch)
    assert loss.item() == 0.0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, objective.params))
    meter = LossMeter(State())
    meter.add(Update(loss, None, weight), batch)
    assert meter.mean() == {}


def test_a_batch_of_which_no_target_counts_is_said_to_be_one() -> None:
    batch = Batch(torch.randn(2, T, 4), torch.full((2, T), IGNORE_INDEX))
    loss, weight = Objective(nn.Identity(), cross_entropy).weighed(batch)
    meter = LossMeter(State(step=1))
    meter.add(Update(loss, None, weight), batch)
    with pytest.raises(NonFinite, match="no target of its batch counts"):
        meter.mean()


def test_a_sum_of_entries_is_of_the_entries() -> None:
    model, batch = Heads(), drawn()
    inner: Any = WeightedSum({"ce": cross_entropy, "l2": l2}, {"l2": 0.1})
    objective = Objective(model, OfEntries(inner, "a", "a"))
    expected = (mean(model(batch.x)["a"].movedim(-1, 1), batch.y["a"], batch.weight) + 0.1 * l2(model, batch)).item()  # type: ignore[operator]
    assert objective(batch).item() == approx(expected, rel=1e-6)
    split = TensorSplit(batch.x, batch.y, batch.weight)
    assert evaluate(objective, {}, split, batch_size=3, device=CPU)["loss"] == approx(expected, rel=1e-6)
