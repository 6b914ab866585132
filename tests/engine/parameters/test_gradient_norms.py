"""The norms of gradients that a run logs, beside those of autograd."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.objective import Objective
from dlrun.engine.parameters.gradient_norms import GradientNorms
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.engine.steppers import Thaw
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule, ParameterGroup
from dlrun.optimizers.sgd import SGD
from dlrun.schedules.curves import constant
from dlrun.storage.checkpoint import Checkpoint
from dlrun.types import Batch, Rule, Update

CPU = torch.device("cpu")
PLAN = Plan(steps=14, per_epoch=5, log_every=4, evaluate_every=14)
LAYERS = {"0": [0, 1], "2": [2, 3], "4": [4]}
"""The places of each layer's parameters in the network below."""


class Notes:
    def __init__(self) -> None:
        self.points: dict[int, dict[str, Any]] = {}
        self.saved: Checkpoint | None = None

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        self.points[step] = values

    def save(self, checkpoint: Checkpoint, best: Any) -> None:
        self.saved = checkpoint


def data() -> TensorSplit:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(47, 4, generator=draw)
    return TensorSplit(x, (x.sum(1) > 0).long())


def training(rule: Rule | None = None, *, measure: bool = True, **options: Any) -> loop.Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2, bias=False))
    objective = Objective(model, cross_entropy)
    optimizer = Descent(rule or SGD(lr=0.1), **options)
    optimizer.measure_norms = measure
    optimizer.init(objective)
    return loop.Training(
        objective=objective,
        batches=Batches(data(), size=10, seed=5, device=CPU),
        optimizer=optimizer,
        schedule=constant,
        plan=PLAN,
        seed=5,
        device=CPU,
    )


def by_hand(run: loop.Training, steps: int) -> dict[int, list[Tensor]]:
    """The gradients of plain descent, by autograd, before each step's update."""
    found, source = {}, run.batches.start(0)
    for step in range(1, steps + 1):
        batch = next(source)
        loss = nn.functional.cross_entropy(run.objective.model(batch.x), batch.y)
        found[step] = list(torch.autograd.grad(loss, run.objective.params))
        with torch.no_grad():
            for p, grad in zip(run.objective.params, found[step], strict=True):
                p -= 0.1 * grad
    return found


def joint(grads: list[Tensor]) -> float:
    return float(torch.cat([grad.reshape(-1) for grad in grads]).double().norm())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_layer_has_the_norm_of_its_gradient(accumulate: int) -> None:
    notes, expected = Notes(), by_hand(training(), 14)
    loop.train(training(accumulate=accumulate), State(), notes)
    assert [*notes.points] == [4, 8, 12, 14]
    for step, point in notes.points.items():
        norms = {name: value for name, value in point.items() if name.startswith("grad_norm")}
        layers = {f"grad_norm/{name}": joint([expected[step][i] for i in own]) for name, own in LAYERS.items()}
        assert norms == pytest.approx(layers | {"grad_norm": joint(expected[step])}, rel=1e-5)


def test_clipping_holds_the_norm_at_the_threshold() -> None:
    bound = 0.1
    notes, first = Notes(), by_hand(training(), 4)
    run = training(clip=bound)
    run = replace(run, plan=replace(PLAN, log_every=1))
    loop.train(run, State(), notes)
    # of the first step, before any clipping has had an effect
    assert notes.points[1]["grad_norm/0"] == pytest.approx(joint([first[1][i] for i in LAYERS["0"]]), rel=1e-5)
    norms = [(point["grad_norm"], point["grad_norm_clipped"]) for point in notes.points.values()]
    assert any(before > bound for before, _ in norms)
    assert all(after == pytest.approx(min(before, bound), rel=1e-4) for before, after in norms)


@pytest.mark.parametrize("options", [{}, {"clip": 0.1}, {"accumulate": 3}], ids=lambda o: "-".join(o) or "plain")
def test_no_other_number_changes(options: dict[str, Any]) -> None:
    plain, measured = Notes(), Notes()
    loop.train(training(measure=False, **options), State(), plain)
    loop.train(training(**options), State(), measured)
    for step, values in plain.points.items():
        rest = {name: measured.points[step][name] for name in values if not name.startswith("throughput")}
        assert rest == {name: values[name] for name in rest}
    assert plain.saved is not None and measured.saved is not None
    for name, value in plain.saved.model.items():
        assert torch.equal(value, measured.saved.model[name]), name


def test_eager_steps_measure_where_they_log() -> None:
    run = training()
    stepper, taken = run.stepper(), dict[int, Update]()
    blocks = stepper.start(0)
    for step, block in zip(range(14), blocks, strict=False):
        taken[step + 1] = stepper.take(step, block)[0]
    blocks.close()
    assert [step for step, update in taken.items() if update.parameter_norms is not None] == [4, 8, 12, 14]
    assert run.optimizer.measure_norms  # type: ignore[attr-defined]


def test_layers_that_wait_are_left_out() -> None:
    groups = [ParameterGroup([2, 3, 4], 1.0), ParameterGroup([0, 1], 1.0)]
    run = training(LayeredRule([SGD(lr=0.1), SGD(lr=0.1)], groups))
    notes = Notes()
    loop.train(replace(run, thaw=Thaw([9, 9, 0, 0, 0], {})), State(), notes)
    logged = {step: sorted(n for n in point if n.startswith("grad_norm/")) for step, point in notes.points.items()}
    late, all_layers = ["grad_norm/2", "grad_norm/4"], ["grad_norm/0", "grad_norm/2", "grad_norm/4"]
    assert logged == {4: late, 8: late, 12: all_layers, 14: all_layers}


def test_an_infinite_gradient_is_that_of_its_own_layer() -> None:
    norms = torch.tensor([float("inf"), 1.0, 3.0, 4.0, 2.0])
    found = GradientNorms(training().objective).read(Update(norms[0], None, None, norms))
    assert found == {"grad_norm/0": float("inf"), "grad_norm/2": 5.0, "grad_norm/4": 2.0}


def test_a_parameter_of_the_loss_has_a_name_too() -> None:
    class Scaled(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.scale, self.shared = nn.Parameter(torch.ones(())), model

        def forward(self, model: nn.Module, batch: Batch) -> Tensor:
            return cross_entropy(model, batch) * self.scale

    model = nn.Sequential(nn.Linear(2, 2))
    assert Objective(model, Scaled(model)).names == ["0.weight", "0.bias", "loss.scale"]
    assert Objective(nn.Linear(2, 2), partial(cross_entropy, label_smoothing=0.1)).names == ["weight", "bias"]
