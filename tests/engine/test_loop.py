"""The loop against a loop written by hand, and against itself resumed."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.errors import NonFinite
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import for_task
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.schedules.curves import constant, cosine
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.types import IGNORE_INDEX, Batch, Rule

CPU = torch.device("cpu")
PLAN = Plan(steps=30, per_epoch=6, log_every=4, evaluate_every=5, checkpoint_every=1)


class Notes:
    """A recorder that keeps everything in memory."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.saved: dict[int, dict[str, Any]] = {}
        self.best: dict[int, BestWeights | None] = {}

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        timeless = {name: value for name, value in values.items() if not name.startswith("throughput/")}
        self.points.append((step, timeless))

    def save(self, content: Checkpoint, best: BestWeights | None) -> None:
        step = content.step
        self.saved[step], self.best[step] = cloned(content), cloned(best)

    def curve(self, name: str) -> dict[int, float]:
        return {step: values[name] for step, values in self.points if name in values}


def cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: cloned(v) for k, v in value.items()}
    if isinstance(value, Checkpoint | BestWeights):
        return type(value).from_dict(cloned(value.to_dict()))
    return [cloned(v) for v in value] if isinstance(value, list | tuple) else value


def data(n: int, seed: int) -> TensorSplit:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=draw)
    return TensorSplit(x, (x.sum(1) > 0).long())


def jitter(x: Tensor, draw: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=draw)


def training(rule: Rule | None = None, **options: Any) -> loop.Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    objective = Objective(model, cross_entropy)
    optimizer = Descent(rule or Adam(lr=0.05, weight_decay=0.01, decoupled=True), clip=1.0)
    optimizer.init(objective)
    batches = Batches(data(47, 0), size=8, seed=5, device=CPU, augment=jitter)
    given = {
        "objective": objective,
        "batches": batches,
        "optimizer": optimizer,
        "schedule": cosine,
        "plan": PLAN,
        "seed": 5,
        "device": CPU,
        "validation": data(31, 1),
        "metrics": for_task("classification"),
    }
    return loop.Training(**given | options)  # type: ignore[arg-type]


def test_the_loop_is_the_loop_that_one_would_write_by_hand() -> None:
    run = training(SGD(lr=0.1), schedule=constant, validation=None)
    run = replace(run, batches=replace(run.batches, augment=None), optimizer=Descent(SGD(lr=0.1)))
    run.objective.model[3].p = 0.0
    run.optimizer.init(run.objective)
    by_hand = training().objective.model
    by_hand[3].p = 0.0
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    losses = []
    for epoch in range(5):
        for index in run.batches.indices(epoch):
            batch = run.batches.split.gather(index)
            loss = nn.functional.cross_entropy(by_hand(batch.x), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(index)))
    notes = Notes()
    loop.train(run, State(), notes)
    for name, value in run.objective.model.state_dict().items():
        assert torch.allclose(value, by_hand.state_dict()[name], rtol=1e-5, atol=1e-6), name
    # a point is the mean over the samples since the one before it
    for last, value in notes.curve("train/loss").items():
        part = losses[(last - 1) // 4 * 4 : last]
        assert value == pytest.approx(sum(a * n for a, n in part) / sum(n for _, n in part), rel=1e-5)


@pytest.mark.parametrize("size", [8, 6000])
def test_steps_of_two_tensors_call_nothing_of_nests(size: int) -> None:
    # small batches are cut from a stretch, large ones gathered one by one
    run = training(SGD(lr=0.1), validation=None)
    run = replace(run, batches=Batches(data(36 * size, 0), size=size, seed=5, device=CPU))
    model = nn.Linear(4, 2)
    objective, meter = Objective(model, cross_entropy), run.loss_meter(State())
    run.optimizer.init(objective)
    called = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)

    # the first batch decides the form of all
    batches = run.batches.start(0)
    next(batches)
    sys.setprofile(profile)
    try:
        for batch in islice(batches, 33):
            meter.add(run.optimizer.step(objective, batch, 0.1), batch)
    finally:
        sys.setprofile(None)
        batches.close()
    assert any(name.endswith("engine/objective.py") for name in called)
    assert not [name for name in called if "/dlrun/nests/" in name]


@pytest.mark.parametrize(
    "rule",
    [Adam(lr=0.05, weight_decay=0.01, decoupled=True), SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)],
)
@pytest.mark.parametrize("average", [False, True])
def test_a_run_resumed_at_any_step_is_bit_equal(rule: Rule, average: bool) -> None:
    def fresh() -> loop.Training:
        run = training(rule)
        return replace(run, average=Average(run.objective.params, 0.9)) if average else run

    whole = Notes()
    end = loop.train(fresh(), State(), whole)
    for step in (1, 5, 6, 13, 29):
        run, notes = fresh(), Notes()
        state = loop.restore(run, cloned(whole.saved[step]))
        run.best = cloned(whole.best[step])
        assert loop.train(run, state, notes).best_step == end.best_step
        assert notes.points == [point for point in whole.points if point[0] > step]
        assert same(notes.saved[30], whole.saved[30])
        assert same(notes.best[30], whole.best[30])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Checkpoint | BestWeights):
        return same(a.to_dict(), b.to_dict())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "train_seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_the_best_weights_are_those_of_the_best_validation() -> None:
    run, notes = training(), Notes()
    state = loop.train(run, State(), notes)
    losses = notes.curve("val/loss")
    assert state.best_step == min(losses, key=lambda step: losses[step])
    assert run.best
    run.objective.model.load_state_dict(run.best.model)
    found = loop.evaluate(run.objective, run.metrics, run.validation, batch_size=7, device=CPU)  # type: ignore[arg-type]
    assert found["loss"] == pytest.approx(losses[state.best_step], rel=1e-6)
    upward = training(monitor="val/accuracy", higher_is_better=True)
    accuracies = Notes()
    state = loop.train(upward, State(), accuracies)
    curve, losses = accuracies.curve("val/accuracy"), accuracies.curve("val/loss")
    assert state.best_step == max(curve, key=lambda step: (curve[step], -losses[step]))


def test_a_first_validation_that_is_no_number_is_not_the_best_for_ever() -> None:
    seen: Iterator[float]

    def strange(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        return torch.tensor(next(seen)), 1

    for higher, best in ((False, 15), (True, 10)):
        seen = iter([math.nan, 3.0, 2.0, math.nan])
        plan = replace(PLAN, steps=20)
        run = training(plan=plan, metrics={"strange": strange}, monitor="val/strange", higher_is_better=higher)
        assert loop.train(run, State(), Notes()).best_step == best


def test_patience_ends_a_run_and_a_resumed_run_stays_ended() -> None:
    plan = replace(PLAN, steps=300, evaluate_every=1)
    run, notes = training(plan=plan, patience=3), Notes()
    state = loop.train(run, State(), notes)
    assert state.best_step is not None
    assert state.step == state.best_step + 3 < 300
    again = training(plan=plan, patience=3)
    assert loop.train(again, loop.restore(again, notes.saved[state.step]), Notes()).step == state.step


def test_a_request_to_stop_saves_at_the_step_boundary() -> None:
    answers = iter([False] * 12 + [True])
    notes = Notes()
    state = loop.train(training(), State(), notes, stop=lambda: next(answers))
    assert state.step == 12
    assert max(notes.saved) == 12


def test_a_loss_that_is_no_number_names_its_step() -> None:
    steps = iter(range(100))

    def explodes(model: nn.Module, batch: Batch) -> Tensor:
        values = cross_entropy(model, batch)
        return values * math.inf if next(steps) == 6 else values

    run = training(plan=replace(PLAN, checkpoint_every=None), validation=None)
    run.objective.loss = explodes
    notes = Notes()
    with pytest.raises(NonFinite, match="step 7"):
        loop.train(run, State(), notes)
    assert not notes.saved


def test_the_average_is_the_closed_form() -> None:
    weights = [torch.zeros(3)]
    average = Average(weights, 0.5)
    expected = torch.zeros(3)
    for step in range(1, 6):
        weights[0] += 1
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average.weights[0], expected)
    with average.applied():
        assert torch.allclose(weights[0], expected)
    assert torch.equal(weights[0], torch.full((3,), 5.0))


def test_a_state_of_another_version_is_read() -> None:
    older = {"step": 7, "best_step": 3, "best_rank": [0.5, 1.0], "window": [[0.1, 4]]}
    state = State.from_dict(older | {"of_a_later_version": 1})
    assert (state.step, state.best_rank, state.window, state.waited) == (7, (0.5, 1.0), [(0.1, 4)], 0)
    assert State.from_dict(state.to_dict()) == state


def by_class(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    values = nn.functional.cross_entropy(model(batch.x), batch.y, reduction="none")
    return values, torch.tensor([1.0, 50.0])[batch.y]


def test_a_point_of_a_weighted_mean_weights_its_batches() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    objective, optimizer = Objective(model, by_class), Descent(SGD(lr=0.0))
    optimizer.init(objective)
    plan = replace(PLAN, steps=6, log_every=6)
    run = training(objective=objective, optimizer=optimizer, plan=plan, validation=None)
    run = replace(run, batches=replace(run.batches, augment=None))
    notes = Notes()
    loop.train(run, State(), notes)
    x, y = run.batches.split.gather(torch.arange(47))
    expected = nn.functional.cross_entropy(model(x), y, weight=torch.tensor([1.0, 50.0])).item()
    assert notes.curve("train/loss") == {6: pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_point_of_padded_classes_is_a_mean_over_those_that_count(accumulate: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(47, 6, 4)
    y = torch.randint(3, (47, 6)).where(torch.arange(6) < torch.randint(1, 7, (47, 1)), IGNORE_INDEX)
    model = nn.Linear(4, 3)
    optimizer = Descent(SGD(lr=0.1), accumulate=accumulate)
    optimizer.init(objective := Objective(model, cross_entropy))
    plan = replace(PLAN, steps=12, log_every=6)
    batches = Batches(TensorSplit(x, y), size=8, seed=3, device=CPU)
    by_hand, sums, counts, drawn = copy.deepcopy(model), [0.0, 0.0], [0, 0], batches.start(0)
    for step in range(12):
        some, targets = next(drawn)
        each = nn.functional.cross_entropy(by_hand(some).transpose(1, 2), targets, reduction="none")
        here = targets != IGNORE_INDEX
        sums[step // 6] += float(each[here].detach().double().sum())
        counts[step // 6] += int(here.sum())
        grads = torch.autograd.grad(each[here].mean(), list(by_hand.parameters()))
        with torch.no_grad():
            for p, grad in zip(by_hand.parameters(), grads, strict=True):
                p -= 0.1 * grad
    notes, run = Notes(), training(objective=objective, optimizer=optimizer, plan=plan, validation=None)
    loop.train(replace(run, batches=batches, schedule=constant), State(), notes)
    expected = [total / count for total, count in zip(sums, counts, strict=True)]
    assert [*notes.curve("train/loss").values()] == pytest.approx(expected, rel=1e-5)
