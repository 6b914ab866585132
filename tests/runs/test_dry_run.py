"""The dry run: it finds what a step or an evaluation would die of, and leaves no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import from_tensors
from dlrun.engine.batches import Batches
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, UserError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.runs.dry_run.passes import Trial, dry_run
from dlrun.types import Batch, Loss

CPU = torch.device("cpu")
WEIGHT = torch.tensor([1.0, 20.0, 3.0])


def trial(model: nn.Module, loss: Loss = cross_entropy, *, samples: int = 65, size: int = 64, **options: Any) -> Trial:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(samples + 20, 4, generator=g), torch.arange(samples + 20) % 3
    data = from_tensors("made", (x[:samples], y[:samples]), (x[samples:], y[samples:]), None, task="classification")
    made = Trial(
        objective=Objective(model, loss),
        optimizer=Descent(Adam(lr=0.1)),
        batches=Batches(data.train, size=size, seed=0, device=CPU),
        metrics={},
        validation=data.validation,
        spec=data.spec,
        plan_steps=None,
        targets={name: f"lab.{name}" for name in ("dataset", "model", "loss", "optimizer", "metrics.mine")},
    )
    return replace(made, **options)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 3))


class Growing(nn.Module):
    """A model with a buffer that it makes at its first pass, and one that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("mask", None)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.mask = torch.ones(len(x), 1)
        self.seen = torch.zeros(len(x))
        out: Tensor = self.linear(x) * self.mask
        return out


@pytest.mark.parametrize("model", [net(), Growing()])
@pytest.mark.parametrize("optimizer", [Descent(Adam(lr=0.1)), Descent(adapt(torch.optim.SGD, lr=0.1)), LBFGS()])
def test_all_is_as_before(model: nn.Module, optimizer: Any) -> None:
    made = trial(model, optimizer=optimizer, samples=70)
    optimizer.init(made.objective)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    kept = [*model.parameters(), *model.buffers()]
    torch.manual_seed(7)
    random.seed(7)
    drawn = torch.get_rng_state(), random.getstate()
    dry_run(made)
    after = model.state_dict(), optimizer.state_dict()
    assert after[0].keys() == before[0].keys()
    assert all(torch.equal(v, before[0][name]) for name, v in after[0].items())
    assert str(after[1]) == str(before[1])
    assert all(a is b for a, b in zip(kept, [*model.parameters(), *model.buffers()], strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]


def test_a_last_batch_of_one_sample_meets_batch_norm_before_the_first_step() -> None:
    with pytest.raises(UserError, match=r"last batch of an epoch, of 1 sample,") as refused:
        dry_run(trial(net()))
    assert "Type trainer.drop_last=true to leave it out, or trainer.batch_size=63" in str(refused.value)
    # it never comes
    made = trial(net())
    dry_run(replace(made, batches=replace(made.batches, drop_last=True)))
    dry_run(replace(made, batches=replace(made.batches, only=1)))
    dry_run(replace(made, plan_steps=1))
    dry_run(trial(net(), samples=64))


def test_a_batch_of_the_real_size_is_tried_with_its_augmentation() -> None:
    class Narrow(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 10:
                raise ValueError("too many")
            return super().forward(x)

    with pytest.raises(UserError, match=r"(?s)a first step over 64 samples failed.*float32 \[64, 4\].*too many"):
        dry_run(trial(Narrow(4, 3)))

    def halve(x: Tensor, draw: torch.Generator) -> Tensor:
        return x[::2]

    made = trial(net())
    with pytest.raises(UserError, match=r"(?s)the augmentation of a first batch failed.*\[32, 4\] for 64 samples"):
        dry_run(replace(made, batches=replace(made.batches, augment=halve)))


def test_an_optimizer_that_fails_in_its_step_does_so_before_the_run() -> None:
    model = nn.Sequential(nn.Linear(4, 3))

    class Broken:
        lr = 0.1

        def init(self, params: list[Tensor], decay: list[bool]) -> None: ...

        def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
            raise KeyError("momentum")

    with pytest.raises(UserError, match=r"(?s)optimizer=lab.optimizer.*KeyError: 'momentum'"):
        dry_run(trial(model, optimizer=Descent(Broken())))  # type: ignore[arg-type]
    sparse = nn.Sequential(nn.Linear(4, 4), nn.Flatten(), Looked())
    with pytest.raises(UserError, match="does not support sparse gradients"):
        dry_run(trial(sparse, optimizer=Descent(adapt(torch.optim.Adam, lr=0.1))))
    dry_run(trial(sparse))


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.table((x > 0).sum(1))
        return out


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, y: outputs / y,
        lambda outputs, y: F.cross_entropy(outputs, y),
        lambda outputs, y: y - outputs,
        lambda outputs, y: outputs.log_softmax(1),
    ],
)
def test_a_loss_of_outputs_and_targets_is_told_how_to_be_typed(loss: Any) -> None:
    model = net()
    with pytest.raises(UserError) as error:
        dry_run(trial(model, loss))
    assert "loss=of_outputs loss.function._target_=lab.loss" in str(error.value)


def test_a_mistake_about_the_model_is_not_taken_for_one() -> None:
    with pytest.raises(UserError) as error:
        dry_run(trial(net(), lambda model, batch: model.log_prob(batch.x)))
    assert "of_outputs" not in str(error.value)


def test_too_little_memory_is_no_misfit_of_parts() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        # more than any machine has, for a batch of the real size
        torch.empty(1 << 55 if len(batch.x) == 64 else 1)
        return cross_entropy(model, batch)

    with pytest.raises(UserError, match=r"too little memory: a first step over 64 samples") as found:
        dry_run(trial(net(), loss))
    assert "do not fit" not in str(found.value) and "trainer.batch_size" in str(found.value)


def test_other_outputs_than_classes_are_refused_whatever_the_first_samples_are() -> None:
    for outputs in (2, 4):
        with pytest.raises(ConfigError, match=rf"model=lab.model returns {outputs} values for the 3 classes"):
            dry_run(trial(nn.Linear(4, outputs)))

    def own(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.x), batch.y)

    made = trial(nn.Linear(4, 2), own)
    x, y = made.batches.split.gather(torch.arange(65))
    few = from_tensors("two", (x[y < 2], y[y < 2]), (x, y), None, task="classification", classes=3).train
    with pytest.raises(UserError, match="Target 2 is out of bounds"):
        dry_run(replace(made, batches=replace(made.batches, split=few, size=8), validation=few))


def weighted(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.x), batch.y, weight=WEIGHT)


def pair(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(model(batch.x), batch.y, reduction="none"), WEIGHT[batch.y]


def summed(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.x), batch.y, reduction="sum")


def contrastive(model: nn.Module, batch: Batch) -> Tensor:
    out = F.normalize(model(batch.x), dim=1)
    return F.cross_entropy(out @ out.T, torch.arange(len(out)))


def test_a_sum_over_the_batch_is_called_so() -> None:
    with pytest.raises(ConfigError, match="looks like a sum over the batch"):
        dry_run(trial(nn.Linear(4, 3), summed))


@pytest.mark.parametrize("loss", [weighted, contrastive])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_mean_that_hangs_on_the_batch_size_is_refused(loss: Loss, zeros: bool) -> None:
    model = nn.Linear(4, 3)
    if zeros:  # all classes are as likely at first: only a step shows the weights
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
    with pytest.raises(ConfigError, match=r"(?s)loss=lab.loss.*evaluation.batch_size.*a pair.*of_batch = True"):
        dry_run(trial(model, loss))


def test_a_loss_says_that_its_values_are_of_batches() -> None:
    def of_batch(model: nn.Module, batch: Batch) -> Tensor:
        return contrastive(model, batch)

    setattr(of_batch, "of_batch", True)  # noqa: B010
    dry_run(trial(nn.Linear(4, 3), of_batch))


def test_values_with_weights_average_alike_in_every_batch_size_and_train_as_torch_does() -> None:
    made = trial(net(), pair)
    dry_run(replace(made, batches=replace(made.batches, drop_last=True)))
    found = [
        evaluate(made.objective, {}, made.validation or made.batches.split, batch_size=size, device=CPU)["loss"]
        for size in (1, 7, 1000)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)
    model = made.objective.model.eval()
    batch = made.batches.split.gather(torch.arange(20))
    torch.testing.assert_close(made.objective(batch), weighted(model, batch))


def test_parts_of_a_batch_that_do_not_add_up_to_its_gradient_are_refused() -> None:
    made = trial(net(), pair)
    with pytest.raises(ConfigError, match=r"trainer.accumulate=2: loss=lab.loss has weights"):
        dry_run(replace(made, optimizer=Descent(Adam(lr=0.1), accumulate=2)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda out, y: (out.mean(1), y), "expected a float tensor"),
        (lambda out, y: (out.mean(1), torch.ones(1)), "one value a sample"),
        (lambda out, y: (out.mean(1), torch.ones(len(y), 2)), "a pair has a value and a weight for each sample"),
    ],
)
def test_a_pair_has_a_weight_for_each_value(value: Callable[[Tensor, Tensor], Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dry_run(trial(nn.Linear(4, 3), lambda model, batch: value(model(batch.x), batch.y)))


def test_a_metric_of_means_is_refused_and_one_without_samples_is_not() -> None:
    def mean(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        return model(batch.x).mean(), 1

    def none(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        mine = batch.y == 99
        return (model(batch.x).argmax(1)[mine] == 2).double().sum(), mine.sum()

    with pytest.raises(ConfigError, match=r"(?s)metrics.mine=lab.metrics.mine.*A metric returns a sum"):
        dry_run(trial(nn.Linear(4, 3), metrics={"mine": mean}))
    dry_run(trial(nn.Linear(4, 3), metrics={"mine": none}))


def test_a_model_that_mixes_samples_is_told_from_its_loss() -> None:
    class Mixing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0))

    with pytest.raises(ConfigError, match=r"model=lab.model.*the loss of 8 samples"):
        dry_run(trial(Mixing(4, 3)))


def test_random_outputs_are_no_dependence_on_the_batch_size() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out + torch.randn_like(out)

    dry_run(trial(Noisy(4, 3)))
