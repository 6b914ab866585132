"""A step as one compiled program, against the step that it was made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import evaluation, loop
from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.engine.steppers import EagerStepper
from dlrun.execution import compile_policy, compiled, cuda_graphs
from dlrun.execution.snapshots import agree, assign
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import for_task
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.muon import Muon
from dlrun.optimizers.sgd import SGD
from dlrun.schedules.curves import cosine
from dlrun.types import Batch
from tests.conftest import Called
from tests.engine.test_loop import Notes, by_class, cloned, data, same
from tests.facts import says

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CLASSES = for_task("classification")
PLAN = Plan(steps=50, per_epoch=6, log_every=4, evaluate_every=6, checkpoint_every=1)
"""Of 47 samples in batches of 8: the last of an epoch is smaller."""


def mean(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """A metric whose count is a number."""
    return model(batch.x).double().sum(), len(batch.x)


def training(optimizer: Any = None, *layers: nn.Module, **options: Any) -> loop.Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *layers, nn.Linear(6, 2))
    objective = Objective(model, cross_entropy)
    optimizer = optimizer or Descent(SGD(lr=0.1))
    optimizer.init(objective)
    given = {
        "objective": objective,
        "batches": Batches(data(47, 0), size=8, seed=5, device=CPU),
        "optimizer": optimizer,
        "schedule": cosine,
        "plan": PLAN,
        "seed": 5,
        "device": CPU,
        "validation": data(31, 1),
        "metrics": for_task("classification"),
    }
    return loop.Training(**given | options)


def measured(optimizer: Descent) -> Descent:
    optimizer.measure_norms = True
    return optimizer


RULES: list[Callable[[], Any]] = [
    lambda: Descent(SGD(lr=0.1)),
    lambda: Descent(SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1), clip=0.3),
    lambda: Descent(SGD(lr=0.1, momentum=0.9, weight_decay=0.1, decoupled=True), accumulate=3),
    lambda: Descent(Adam(lr=0.1)),
    lambda: measured(Descent(SGD(lr=0.1, momentum=0.9), clip=0.3)),
    lambda: Descent(Adam(lr=0.1, weight_decay=0.1, decoupled=True), clip=0.3),
]


@pytest.mark.parametrize("make", RULES, ids=["sgd", "nesterov", "accumulated", "adam", "norms", "adamw"])
def test_a_program_trains_as_the_steps_that_it_was_made_from(make: Any, interpreted: list[Any]) -> None:
    eager, traced = training(make()), training(make(), make_stepper=compiled.make_stepper)
    notes, theirs = Notes(), Notes()
    loop.train(eager, State(), theirs)
    loop.train(traced, State(), notes)
    assert len(interpreted) == 1
    for (step, values), (_, expected) in zip(notes.points, theirs.points, strict=True):
        assert values == pytest.approx(expected, rel=1e-3), step
    torch.testing.assert_close(traced.objective.params, eager.objective.params, rtol=1e-3, atol=1e-4)


def test_making_a_program_leaves_no_trace(interpreted: list[Any]) -> None:
    run = training(Descent(Adam(lr=0.1)))
    before = cloned(run.checkpoint(State()))
    assert isinstance(compiled.make_stepper(run), compiled.CompiledStepper)
    assert same(cloned(run.checkpoint(State())), before)


@pytest.mark.parametrize("average", [False, True])
def test_a_compiled_run_resumed_at_any_step_is_bit_equal(average: bool, interpreted: list[Any]) -> None:
    def fresh() -> loop.Training:
        run = training(Descent(Adam(lr=0.05), clip=1.0), make_stepper=compiled.make_stepper)
        return replace(run, average=Average(run.objective.params, 0.9)) if average else run

    whole = Notes()
    loop.train(fresh(), State(), whole)
    first = max(s for s in whole.saved if s < 30)
    run, notes = fresh(), Notes()
    state = loop.restore(run, cloned(whole.saved[first]))
    run.best = cloned(whole.best[first])
    loop.train(run, state, notes)
    assert notes.points == [point for point in whole.points if point[0] > first]
    assert same(notes.saved[50], whole.saved[50])


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of programs needs g++")
def test_torch_compiles_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    make = RULES[-1]
    eager, run = training(make()), training(make(), make_stepper=compiled.make_stepper, plan=replace(PLAN, steps=20))
    stepper = compiled.make_stepper(run)
    assert isinstance(stepper, compiled.CompiledStepper), capsys.readouterr().err
    taken = stepper.take(0, [next(run.batches.start(0)), *[next(run.batches.start(1))] * 3])
    expected = EagerStepper(replace(eager, plan=run.plan)).take(0, [next(run.batches.start(i > 0)) for i in range(4)])
    for found, theirs in zip(taken, expected, strict=True):
        torch.testing.assert_close(found.loss, theirs.loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.grad_norm, theirs.grad_norm, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.objective.params, eager.objective.params, rtol=1e-4, atol=1e-5)
    again = stepper.take(4, [next(run.batches.start(5))])  # seven samples
    assert again[0].loss.isfinite()


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of programs needs g++")
def test_two_threads_add_up_the_gradient_of_an_embedding_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # where Inductor refuses what it would let pass elsewhere
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 16), nn.Flatten(), nn.Linear(64 * 16, 2))
    objective, optimizer = Objective(model, cross_entropy), Descent(SGD(lr=0.1))
    optimizer.init(objective)
    split = TensorSplit(torch.randint(0, 3, (256, 64)), torch.randint(0, 2, (256,)))
    run = replace(
        training(),
        objective=objective,
        optimizer=optimizer,
        batches=Batches(split, 256, seed=0, device=CPU),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        stepper = compiled.make_stepper(run)
        assert isinstance(stepper, compiled.CompiledStepper)
        batch, weights = next(run.batches.start(0)), [p.detach().clone() for p in objective.params]
        found = []
        for _ in range(20):
            assign([p.detach() for p in objective.params], weights)
            stepper.take(0, [batch])
            found.append(model[0].weight.detach().clone())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


class Masks(nn.Module):
    """Dropout that no module shows."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, self.training)


class Attends(nn.Module):
    """Attention over the batch, whose operator could draw masks."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        q = x[None, None]
        mixed: Tensor = nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=self.dropout)
        return mixed[0, 0]


class Anneals(nn.Module):
    """Counts its steps, in a number that is no tensor."""

    count = 1

    def forward(self, x: Tensor) -> Tensor:
        self.count += self.training
        return x * (1 + 1 / self.count)


class Branches(nn.Module):
    """What cannot be one program: it depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


@pytest.mark.parametrize(
    ("optimizer", "layer", "why"),
    [
        (lambda: Descent(SGD(lr=0.1)), nn.Dropout(0.3), "Dropout draws its masks"),
        (lambda: Descent(SGD(lr=0.1)), Masks(), "draws random numbers"),
        (lambda: Descent(SGD(lr=0.1)), Attends(0.3), "draws random numbers"),
        (lambda: Descent(SGD(lr=0.1)), Branches(), "one by one"),
        (lambda: Descent(SGD(lr=0.1)), Anneals(), "a value of its own in each step"),
        (lambda: Descent(Muon(lr=0.1)), nn.Identity(), "Muon has no form"),
        (lambda: LBFGS(lr=0.1), nn.Identity(), "LBFGS has no form"),
        (lambda: Descent(SGD(lr=0.1, momentum=0.9, dampening=0.5)), nn.Identity(), "dampening"),
    ],
    ids=["dropout", "hidden dropout", "dropout in attention", "branches", "annealing", "muon", "lbfgs", "dampening"],
)
def test_what_cannot_be_a_program_is_trained_as_ever(
    optimizer: Any, layer: nn.Module, why: str, interpreted: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(PLAN, steps=8)
    eager, notes, theirs = training(optimizer(), deepcopy(layer), plan=plan), Notes(), Notes()
    asked = training(optimizer(), layer, plan=plan, make_stepper=compiled.make_stepper)
    loop.train(eager, State(), theirs)
    loop.train(asked, State(), notes)
    told = capsys.readouterr().err
    says(told, why)
    assert told.count("\n") == 1
    assert notes.points == theirs.points


def test_attention_that_draws_no_masks_is_part_of_a_program(
    interpreted: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    eager, traced = training(None, Attends(0.0)), training(None, Attends(0.0), make_stepper=compiled.make_stepper)
    loop.train(eager, State(), Notes())
    loop.train(traced, State(), Notes())
    assert capsys.readouterr().err == ""
    assert any("attention" in str(node.target) for node in interpreted[0].graph.nodes)
    torch.testing.assert_close(traced.objective.params, eager.objective.params, rtol=1e-3, atol=1e-4)


def fake_graph(steps: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
    """Stand in for `cuda_graphs.record` without a GPU: take the steps again, their results copied to one place."""
    found = [t.clone() for t in steps()]

    def replay() -> None:
        for place, value in zip(found, steps(), strict=True):
            place.copy_(value)

    return replay, found


@pytest.mark.parametrize("make", RULES, ids=["sgd", "nesterov", "accumulated", "adam", "norms", "adamw"])
def test_graphs_take_blocks_as_the_steps_go(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "record", fake_graph)
    monkeypatch.setattr(cuda_graphs, "warm_up", lambda work, device: None)
    plan = Plan(steps=90, per_epoch=6, log_every=10, evaluate_every=30, checkpoint_every=5)
    # a batch that is smaller, the last of an epoch, is a step by itself, and the rest of its block are graphs
    whole, theirs = Notes(), Notes()

    def fresh() -> loop.Training:
        run = training(make(), plan=plan)
        graphs = cuda_graphs.CudaGraphStepper(run, compiled.example_batch(run), compiled.step_state(run))
        run.make_stepper = lambda run: graphs
        return run

    eager, run = training(make(), plan=plan), fresh()
    loop.train(eager, State(), theirs)
    loop.train(run, State(), whole)
    for (step, values), (_, expected) in zip(whole.points, theirs.points, strict=True):
        assert values == pytest.approx(expected, rel=1e-3), step
    torch.testing.assert_close(run.objective.params, eager.objective.params, rtol=1e-3, atol=1e-4)
    # where a run stopped, between two blocks, is where it goes on
    again, notes = fresh(), Notes()
    state = loop.restore(again, cloned(whole.saved[35]))
    again.best = cloned(whole.best[35])
    loop.train(again, state, notes)
    assert notes.points == [point for point in whole.points if point[0] > 35]
    assert same(notes.saved[90], whole.saved[90])


@pytest.mark.parametrize("graphs", [False, True], ids=["program", "graphs"])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_weights_of_batches_come_out_of_a_program_and_a_graph(
    graphs: bool, clip: float | None, interpreted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "record", fake_graph)
    monkeypatch.setattr(cuda_graphs, "warm_up", lambda work, device: None)

    def make() -> loop.Training:
        run = training(Descent(SGD(lr=0.1), clip=clip))
        run.objective = Objective(run.objective.model, by_class)
        return run

    eager, run = make(), make()
    run.make_stepper = compiled.make_stepper
    if graphs:
        stepper = cuda_graphs.CudaGraphStepper(run, compiled.example_batch(run), compiled.step_state(run))
        run.make_stepper = lambda run: stepper
    notes, theirs = Notes(), Notes()
    loop.train(eager, State(), theirs)
    loop.train(run, State(), notes)
    assert len(interpreted) == (not graphs)
    for (step, values), (_, expected) in zip(notes.points, theirs.points, strict=True):
        assert values == pytest.approx(expected, rel=1e-3), step


def test_a_program_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled, "_lower", lambda graph, given: lambda flat: [torch.tensor(1.0)])
    assert isinstance(compiled.make_stepper(training()), EagerStepper)
    says(capsys.readouterr().err, "does not compute what the step does")


def test_blocks_end_where_the_loop_looks_up_and_are_the_same_from_anywhere() -> None:
    plan = Plan(steps=100, per_epoch=30, log_every=20, evaluate_every=30, checkpoint_every=45)

    def ends(step: int) -> list[int]:
        found = []
        while step < plan.steps:
            step += plan.block(step, 8)
            found.append(step)
        return found

    whole = ends(0)
    assert {20, 30, 40, 45, 60, 80, 90, 100} <= {*whole}
    assert all(ends(step) == whole[i + 1 :] for i, step in enumerate(whole))


def test_compiling_is_decided_by_what_it_saves() -> None:
    def auto(steps: int | None, flop: int = 1000, device: str = "cpu") -> bool:
        why_not = "not on this device" if device == "mps" else None
        return compile_policy.decide(
            "auto", compile_policy.StepProfile(4, flop, steps, torch.device(device), why_not), before={}
        ).compile

    assert not auto(10_000)
    assert auto(10_000_000)
    assert not any((auto(None), auto(10_000_000, 10**9), auto(10_000_000, device="mps")))
    assert compile_policy.decide(True, compile_policy.StepProfile(4, 10**9, 1, CPU), before={"compile": False}).compile
    assert not compile_policy.decide(False, compile_policy.StepProfile(4, 1, 10**9, CPU), before={}).compile
    assert (
        compile_policy.decide(
            "auto", compile_policy.StepProfile(4, 1, 1, CPU), before={"compile": True, "why": "once"}
        ).why
        == "once"
    )


def test_graphs_are_recorded_where_there_are_steps_enough() -> None:
    def auto(steps: int | None, flop: int = 10**9, parameters: int = 8, before: dict[str, Any] | None = None) -> bool:
        work = compile_policy.StepProfile(parameters, flop, steps, torch.device("cuda"))
        return compile_policy.decide("auto", work, before=before or {}).compile

    assert auto(6_000)  # the slides' program
    assert auto(6_000, flop=10**13)
    assert not any((auto(None), auto(1_000), auto(1_000, parameters=200), auto(6_000, before={"compile": False})))
    assert auto(10, before={"compile": True})


def test_what_is_known_to_be_no_program_is_not_chosen() -> None:
    run = training(None, nn.Dropout(0.3))
    why = compiled.why_not(run)
    assert why is not None
    assert compile_policy.decide("auto", compile_policy.StepProfile(4, 1000, 10**7, CPU, why), before={}) == (
        False,
        why,
    )
    assert compiled.why_not(training()) is None


def on_a_gpu(run: loop.Training, monkeypatch: pytest.MonkeyPatch) -> cuda_graphs.GraphedTotals:
    """Have a run evaluate as it does where its steps are graphs."""
    monkeypatch.setattr(cuda_graphs, "record", fake_graph)
    monkeypatch.setattr(cuda_graphs, "warm_up", lambda work, device: None)
    monkeypatch.setattr(cuda_graphs, "EAGER_CHUNKS", 2)
    graphed = cuda_graphs.maybe_graphed(partial(evaluation.totals, run.objective, run.metrics), device=GPU)
    assert isinstance(graphed, cuda_graphs.GraphedTotals)
    run.wrap_totals = lambda _: graphed
    return graphed


@pytest.mark.parametrize("average", [False, True])
def test_a_recorded_validation_finds_what_the_plain_one_does(average: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh() -> loop.Training:
        made = training(Descent(Adam(lr=0.05)), evaluation_batch_size=7, metrics={"mean": mean, **CLASSES})
        made.average = Average(made.objective.params, 0.9) if average else None
        return made

    plain, run, expected, notes = fresh(), fresh(), Notes(), Notes()
    graphed = on_a_gpu(run, monkeypatch)
    loop.train(plain, State(), expected)
    loop.train(run, State(), notes)
    assert graphed._replay is not None
    assert notes.points == expected.points
    assert same(notes.saved[50], expected.saved[50])


def test_a_validation_that_cannot_be_recorded_is_made_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(work: Any, device: torch.device) -> Any:
        raise RuntimeError("no recording")

    plain, run, expected, notes = training(), training(), Notes(), Notes()
    run.evaluation_batch_size = plain.evaluation_batch_size = 7
    on_a_gpu(run, monkeypatch)
    monkeypatch.setattr(cuda_graphs, "record", refused)
    loop.train(plain, State(), expected)
    loop.train(run, State(), notes)
    assert notes.points == expected.points
    assert capsys.readouterr().err.count("no recording") == 1


def test_elsewhere_than_on_a_gpu_nothing_is_recorded() -> None:
    run = training()
    totals_fn = partial(evaluation.totals, run.objective, run.metrics)
    assert cuda_graphs.maybe_graphed(totals_fn, device=CPU) is totals_fn


def test_a_run_says_whether_it_was_compiled(
    call: Callable[..., Called], interpreted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlrun.runs.reload.rebuild import rebuild
    from dlrun.storage.lookup import all_runs

    argv = ("train", "trainer.steps=12", "tracking.enabled=false", "trainer.figures=false")
    assert call(*argv).code == 0
    left = all_runs()[-1].summary().execution
    assert not left["compile"]
    assert "would take about" in left["why"]
    done = call(*argv, "trainer.compile=true")
    assert done.code == 0, done.err
    assert len(interpreted) == 1
    says(done.out, "compiled (trainer.compile=true)")
    # what was decided holds for the rest of the run
    monkeypatch.setattr(compile_policy, "COMPILING", 0.0)
    run = next(r for r in all_runs() if not r.summary().execution["compile"])
    assert not rebuild(run).execution.compile
    assert call("check", "trainer.compile=perhaps").code == 2


def test_two_ways_agree_by_their_change_as_a_whole() -> None:
    before, after = [torch.ones(100), torch.tensor(3.0)], [torch.full((100,), 1.1), torch.tensor(4.0)]
    assert agree(before, after, [t + 1e-4 for t in after])
    assert agree(before, after, [after[0].index_fill(0, torch.tensor([7]), 1.0), after[1]])
    assert not agree(before, after, [torch.full((100,), 1.15), after[1]])
    assert not agree(before, after, [after[0], before[1]])
    assert not agree(before, after, [after[0] * torch.nan, after[1]])
