"""PyTorch's losses by their names: torch's own numbers in training, exact means in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.losses.of_outputs.fitting import check_values
from dlrun.losses.of_outputs.of_outputs import OfOutputs
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.types import Batch

CPU, N, C = torch.device("cpu"), 50, 4


def draw() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(C, (N,), generator=g)
    return {
        "classes": classes,
        "ignored": classes.where(torch.rand(N, generator=g) > 0.3, 2),
        "pixels": torch.randint(C, (N, 5, 3), generator=g),
        "values": torch.randn(N, C, generator=g),
        "labels": torch.randint(2, (N, C), generator=g).float(),
        "signs": 2.0 * torch.randint(2, (N, C), generator=g) - 1,
        "shares": torch.rand(N, C, generator=g).softmax(1),
        "lists": torch.stack([torch.randperm(C, generator=g) for _ in range(N)]).where(
            torch.arange(C) < 2, torch.tensor(-1)
        ),
    }


W = torch.tensor([1.0, 2.0, 0.5, 3.0])
LOSSES: list[tuple[nn.Module, str]] = [
    (nn.CrossEntropyLoss(), "classes"),
    (nn.CrossEntropyLoss(label_smoothing=0.1), "classes"),
    (nn.CrossEntropyLoss(weight=W), "classes"),
    (nn.CrossEntropyLoss(weight=W, label_smoothing=0.2), "classes"),
    (nn.CrossEntropyLoss(weight=W * torch.tensor([1, 1, 0, 1])), "classes"),
    (nn.CrossEntropyLoss(ignore_index=2), "ignored"),
    (nn.CrossEntropyLoss(weight=W, ignore_index=2), "ignored"),
    (nn.CrossEntropyLoss(weight=W), "pixels"),
    (nn.CrossEntropyLoss(), "pixels"),
    (nn.CrossEntropyLoss(weight=W), "shares"),
    (nn.NLLLoss(weight=W), "classes"),
    (nn.MultiMarginLoss(weight=W), "classes"),
    (nn.MultiLabelMarginLoss(), "lists"),
    (nn.MultiLabelSoftMarginLoss(weight=W), "labels"),
    (nn.BCEWithLogitsLoss(pos_weight=W, weight=W), "labels"),
    (nn.MSELoss(), "values"),
    (nn.L1Loss(), "values"),
    (nn.SmoothL1Loss(beta=0.5), "values"),
    (nn.HuberLoss(delta=0.7), "values"),
    (nn.PoissonNLLLoss(), "labels"),
    (nn.KLDivLoss(reduction="batchmean"), "shares"),
    (nn.SoftMarginLoss(), "signs"),
    (nn.HingeEmbeddingLoss(), "signs"),
]


class Net(nn.Module):
    """Outputs of 4 classes, at each of 15 places if asked."""

    def __init__(self, places: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.places, self.linear = places, nn.Linear(6, C * 15 if places else C)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out.view(-1, C, 5, 3) if self.places else out


@pytest.mark.parametrize(("module", "targets"), LOSSES, ids=lambda value: str(value)[:40])
def test_training_is_torchs_own_number_and_evaluation_its_mean(module: nn.Module, targets: str) -> None:
    y, x = draw()[targets], torch.randn(N, 6, generator=torch.Generator().manual_seed(3))
    model = Net(targets == "pixels")
    objective = Objective(model, adapt(module))
    expected = module(model(x), y)
    found, weight = objective.weighed(Batch(x, y))
    assert torch.equal(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, objective.params), torch.autograd.grad(expected, objective.params), strict=True
    ):
        assert torch.equal(one, other)
    means = [evaluate(objective, {}, TensorSplit(x, y), batch_size=size, device=CPU)["loss"] for size in (1, 7, 1000)]
    assert means == pytest.approx([expected.item()] * 3, rel=2e-6)
    # a point of the training curve: batches weighed by their weights
    parts = [objective.weighed(Batch(x[i : i + 20], y[i : i + 20])) for i in (0, 20, 40)]
    if weight is not None:
        total = sum(mean.item() * w.item() for mean, w in parts if w is not None and w > 0)
        assert total / weight.item() == pytest.approx(expected.item(), rel=1e-5)


def test_functions_are_the_same_as_classes() -> None:
    y, x = draw()["classes"], torch.randn(N, 6)
    model = Net(False)
    one, other = (Objective(model, adapt(loss))(Batch(x, y)) for loss in (F.cross_entropy, nn.CrossEntropyLoss()))
    assert torch.equal(one, other)


def test_probabilities_for_a_binary_cross_entropy() -> None:
    y, x = draw()["labels"], torch.randn(N, C)
    objective = Objective(nn.Sigmoid(), adapt(nn.BCELoss()))
    found = evaluate(objective, {}, TensorSplit(x, y), batch_size=7, device=CPU)["loss"]
    assert found == pytest.approx(float(nn.BCELoss()(x.sigmoid(), y)), rel=1e-6)


def test_a_gaussian_takes_a_mean_and_a_variance() -> None:
    class Gaussian(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, F.softplus(x)

    y, x = draw()["values"], torch.randn(N, C)
    objective = Objective(Gaussian(), adapt(nn.GaussianNLLLoss()))
    expected = float(nn.GaussianNLLLoss()(x, y, F.softplus(x)))
    for size in (1, 7, 1000):
        found = evaluate(objective, {}, TensorSplit(x, y), batch_size=size, device=CPU)["loss"]
        assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ConfigError, match="mean and a variance"):
        Objective(nn.Identity(), adapt(nn.GaussianNLLLoss()))(Batch(x, y))


def test_logits_of_a_text_are_those_of_the_last_axis() -> None:
    # as many tokens as classes: torch would take the other axis without a word
    logits, y = torch.randn(5, C, C, requires_grad=True), torch.randint(C, (5, C))
    loss = adapt(nn.CrossEntropyLoss(), last=True)
    assert torch.equal(Objective(nn.Identity(), loss)(Batch(logits, y)), F.cross_entropy(logits.mT, y))
    plain = Objective(nn.Identity(), adapt(nn.CrossEntropyLoss()))
    assert torch.equal(plain(Batch(logits, y)), F.cross_entropy(logits, y))
    # of another number only one axis fits
    logits, y = torch.randn(5, 3, C), torch.randint(C, (5, 3))
    assert torch.equal(plain(Batch(logits, y)), F.cross_entropy(logits.mT, y))


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [
        (nn.MSELoss(), torch.zeros(3, 1), torch.zeros(3)),
        (nn.MSELoss(), torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
        (nn.CrossEntropyLoss(), torch.zeros(3, 1), torch.zeros(3, 1)),
        (nn.CrossEntropyLoss(), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)),
        (nn.BCEWithLogitsLoss(), torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_what_torch_would_broadcast_is_refused(loss: nn.Module, outputs: Tensor, y: Tensor) -> None:
    with pytest.raises(ConfigError):
        Objective(nn.Identity(), adapt(loss))(Batch(outputs, y))


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [
        (nn.NLLLoss(), torch.ones(3, 2), torch.tensor([0, 1, 1])),
        (nn.CrossEntropyLoss(), torch.ones(3, 2), torch.ones(3, 2)),
        (nn.BCEWithLogitsLoss(), torch.ones(3, 2), torch.full((3, 2), 2.0)),
        (nn.SoftMarginLoss(), torch.ones(3, 2), torch.zeros(3, 2)),
        (nn.MultiMarginLoss(), torch.ones(3, 2), torch.tensor([0, 1, -100])),
    ],
)
def test_values_of_which_a_loss_means_nothing_are_refused(loss: nn.Module, outputs: Tensor, y: Tensor) -> None:
    made: Any = adapt(loss)
    with pytest.raises(ConfigError):
        check_values(made.form, outputs, y, made.title)


@pytest.mark.parametrize(
    "made", [nn.TripletMarginLoss(), nn.CTCLoss(), nn.CosineEmbeddingLoss(), F.margin_ranking_loss]
)
def test_a_loss_of_more_than_outputs_and_targets_is_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match="loss of your own"):
        adapt(made)


def test_a_sum_is_refused_and_other_losses_are_left_as_they_are() -> None:
    with pytest.raises(ConfigError, match="reduction=sum"):
        adapt(nn.MSELoss(reduction="sum"))

    def own(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.x).mean()

    class Dice(nn.modules.loss._Loss):
        def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
            return (outputs - y).abs().mean()

    assert adapt(own) is own
    assert isinstance(adapt(Dice()), OfOutputs)
    assert isinstance(adapt(nn.CrossEntropyLoss()), TorchLoss)


def test_an_adaptive_softmax_has_values_and_weights_of_its_own() -> None:
    torch.manual_seed(0)
    module = nn.AdaptiveLogSoftmaxWithLoss(6, C, cutoffs=[2])
    y, x = draw()["classes"], torch.randn(N, 6)
    objective = Objective(nn.Identity(), adapt(module))
    assert len(objective.params) == len([*module.parameters()])
    expected = module(x, y).loss
    assert torch.equal(objective(Batch(x, y)), expected)
    found = evaluate(objective, {}, TensorSplit(x, y), batch_size=7, device=CPU)["loss"]
    assert found == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("module", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=W), nn.NLLLoss()])
def test_weights_of_samples_are_in_the_mean(module: nn.Module) -> None:
    y, x = draw()["classes"], torch.randn(N, 6).log_softmax(1)
    model, weight = Net(False), torch.rand(N)
    objective = Objective(model, adapt(module))
    outputs = model(x)
    each = type(module)(reduction="none")(outputs, y) * (1 if module.weight is None else module.weight[y])
    total = weight * (torch.ones(N) if module.weight is None else module.weight[y])
    expected = ((weight * each).sum() / total.sum()).item()
    assert objective(Batch(x, y, weight)).item() == pytest.approx(expected, rel=1e-6)
    split = TensorSplit(x, y, weight)
    for size in (1, 7, 1000):
        found = evaluate(objective, {}, split, batch_size=size, device=CPU)["loss"]
        assert found == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(("module", "targets"), [(nn.CrossEntropyLoss(), "classes"), (nn.HuberLoss(), "values")])
def test_padded_elements_are_left_out(module: nn.Module, targets: str) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, C, generator=g, requires_grad=True)
    y = torch.randint(C, (5, 7), generator=g) if targets == "classes" else torch.randn(5, 7, C, generator=g)
    mask = torch.arange(7) < torch.tensor([7, 3, 1, 5, 2])[:, None]
    objective = Objective(nn.Identity(), adapt(module))
    found = objective(Batch(x, y, mask=mask))
    expected = module(x[mask], y[mask])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (grad,) = torch.autograd.grad(found, [x])
    assert not grad[~mask].any()
    assert torch.allclose(grad, torch.autograd.grad(expected, [x])[0], atol=1e-7)
