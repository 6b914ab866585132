"""Losses that are no numbers, or spikes: named, taken again, left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun.engine.loop import restore
from dlrun.engine.state import State
from dlrun.errors import ConfigError, NonFinite
from dlrun.execution.ranks import spread
from dlrun.runs.recording.spikes import HISTORY, GuardedTraining, guarded, train
from dlrun.storage import checkpoint
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from dlrun.types import Batch
from tests.conftest import Called
from tests.engine.test_loop import Notes, training
from tests.facts import refuses, says

Call = Callable[..., Called]

Call = Callable[..., Called]
ODD = 13
"""The sample with a number that is none."""


def with_a_gap(action: str | None, *, every: int | None = None, place: int = ODD) -> GuardedTraining:
    run = training()
    run.plan = type(run.plan)(steps=30, per_epoch=6, log_every=4, evaluate_every=5, checkpoint_every=every)
    run.batches.split.x[place] = torch.nan  # type: ignore[attr-defined]
    found = guarded(run, action)  # type: ignore[arg-type]
    assert action is None or isinstance(found, GuardedTraining)
    return found  # type: ignore[return-value]


def weights(run: object) -> list[torch.Tensor]:
    return [t.detach().clone() for t in run.objective.model.state_dict().values()]  # type: ignore[attr-defined]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def bad_steps() -> list[int]:
    batches = training().batches
    return [s + 1 for s in range(30) if ODD in batches.indices(s // 6)[s % 6].tolist()]  # type: ignore[union-attr]


def test_a_step_that_is_skipped_is_as_if_it_had_not_been(capsys: pytest.CaptureFixture[str]) -> None:
    run, notes, state = with_a_gap("skip"), Notes(), State()
    train(run, state, notes)
    assert state.spikes == bad_steps()
    said = capsys.readouterr().err
    says(said, f"The loss of step {bad_steps()[0]} is nan, which is no finite number.", "trainer.on_spike=skip: step")
    # by hand: every step but these
    by_hand = training()
    by_hand.objective.train()
    stepper, blocks = by_hand.stepper(), by_hand.batches.start(0)
    for step in range(30):
        batch = next(blocks)
        if step + 1 not in bad_steps():
            stepper.take(step, [batch])
    assert equal(weights(run), weights(by_hand))
    assert [step for step, _ in notes.points if step in (5, 10)] == [5, 10]
    assert sorted(notes.curve("train/loss")) == [4, 8, 12, 16, 20, 24, 28, 30]


@pytest.mark.parametrize("action", ["skip", "rewind"])
def test_spikes_are_left_out_again_by_a_resumed_run(action: str) -> None:
    whole, notes, state = with_a_gap(action), Notes(), State()
    train(whole, state, notes)
    # the losses are read at other steps
    often, saved, other = with_a_gap(action, every=1), Notes(), State()
    train(often, other, saved)
    assert equal(weights(whole), weights(often))
    assert state.spikes == other.spikes == bad_steps()
    assert notes.points == saved.points
    for step in (3, 7, 17):
        again, points = with_a_gap(action), Notes()
        begin = restore(again, saved.saved[step])
        again.resume(saved.saved[step], begin)
        train(again, begin, points)
        assert equal(weights(again), weights(whole)), step
        assert begin.spikes == state.spikes
        assert points.points == [point for point in notes.points if point[0] > step]


def test_rewinding_goes_back_a_whole_interval_of_logging() -> None:
    run, states = with_a_gap("rewind", every=1), Notes()
    train(run, State(), states)
    # the third, whose last two logging steps come after the spikes before it
    spike = bad_steps()[2]
    base = ((spike - 1) // 4 - 1) * 4
    before, after = states.saved[base], states.saved[spike]
    assert all(map(torch.equal, before.model.values(), after.model.values()))  # type: ignore[attr-defined]


def test_stopping_saves_the_state_before_the_spike() -> None:
    run, notes, state = with_a_gap("stop"), Notes(), State()
    with pytest.raises(NonFinite, match="The state before the step is saved") as stopped:
        train(run, state, notes)
    assert stopped.value.step == bad_steps()[0] == max(notes.saved) + 1
    again = with_a_gap("skip")
    begin = restore(again, notes.saved[max(notes.saved)])
    train(again, begin, Notes())
    whole = with_a_gap("skip")
    train(whole, State(), Notes())
    assert equal(weights(again), weights(whole))


def test_a_spike_lies_six_deviations_above_the_losses_before() -> None:
    from dlrun.runs.recording.spikes import _why

    draw = torch.Generator().manual_seed(0)
    history = (2 + 0.1 * torch.randn(HISTORY, generator=draw)).tolist()
    values = torch.tensor(history, dtype=torch.float64)
    edge = (values.mean() + 6 * values.std()).item()
    assert _why(edge - 1e-9, history) is None
    assert "more than 6 standard deviations" in str(_why(edge + 1e-9, history))
    # too few losses to tell, but what is no number is one
    assert _why(1e9, history[: HISTORY // 2 - 1]) is None
    assert _why(float("inf"), []) is not None


def test_what_cannot_go_back_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.on_spike goes back .* Type trainer.on_spike=null"):
        spread.check(with_a_gap("skip"), 2)


LAB = """
import torch
from dlrun.datasets import from_tensors

def data():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    x[13, 2] = -6
    y, few = (x.sum(1) > 0).long(), x[20:40]
    return from_tensors("gap", (x, y), (few, y[20:40]), task="classification")

class Log(torch.nn.Module):
    def forward(self, x):
        return torch.log(x + 4)

class Net(torch.nn.Sequential):
    def __init__(self, outputs):
        super().__init__(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), Log(), torch.nn.Linear(4, outputs))
        torch.nn.init.eye_(self[0].weight), torch.nn.init.eye_(self[1].weight)
        torch.nn.init.zeros_(self[0].bias), torch.nn.init.zeros_(self[1].bias)
"""
RUN = (
    "trainer.steps=12",
    "trainer.batch_size=8",
    "tracking.enabled=false",
    "trainer.figures=false",
    "optimizer.lr=1e-5",
)


@pytest.fixture
def lab(here: Path) -> Path:
    (here / "lab.py").write_text(LAB)
    for name, target in (("model/logs", "Net"), ("dataset/gap", "data")):
        (here / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "conf" / f"{name}.yaml").write_text(f"_target_: lab.{target}\n")
    return here


def test_a_step_without_a_finite_loss_is_named_taken_again_and_left_out(lab: Path, call: Call) -> None:
    done = call("train", "dataset=gap", "model=logs", "trainer.checkpoint_every=2", *RUN)
    assert done.code == 1
    run = all_runs()[-1]
    found = run.summary().nonfinite
    step, samples = found["step"], found["samples"]
    assert 13 in samples and len(samples) in (8, 4) and found["odd"] == []
    says(done.err, f"The loss of step {step} is nan", f"Its batch has samples {', '.join(map(str, samples))} of the")
    says(done.err, f"`dlrun resume {run.id} --from-nan`")
    assert run.status() == "failed" and "Its batch has samples" in (run.summary().error or "")
    looked = call("resume", run.id, "--from-nan")
    assert looked.code == 0, looked.err
    says(looked.out, "the output of 2 (`Log`), of finite inputs", "loss     nan; alone it is not finite of sample 13")
    says(looked.out, f"step     {step}, samples", "gradient not finite: 0.weight", "inputs   finite")
    before = checkpoint.load(run.before_nan)
    assert before.step == step - 1
    refuses(call("resume", "--from-nan", run.id, "trainer.steps=4"), "Leave it out")
    # the run is as it was, and goes on without that step
    on = call("resume", run.id, "trainer.on_spike=skip")
    assert on.code == 0, on.err
    assert run.summary().spikes[0] == step
    assert [at for at, _ in curves(run.journal)["train/loss"]][-1] == 12
    refuses(call("resume", "--from-nan", run.id), "no step whose loss was no finite number")


def test_a_training_that_diverges_ends() -> None:
    run = with_a_gap("skip")
    run.batches.split.x[:] = torch.nan  # type: ignore[attr-defined]
    with pytest.raises(NonFinite, match="the training diverges"):
        train(run, State(), Notes())


def test_weights_that_are_no_numbers_blame_the_step_that_made_them() -> None:
    run = training()
    run.plan = type(run.plan)(steps=12, per_epoch=6, log_every=4, evaluate_every=5)
    taken = run.optimizer.step

    def step(objective: object, batch: Batch, lr: float) -> object:
        update = taken(objective, batch, lr)  # type: ignore[arg-type]
        # an infinite gradient leaves a loss that is finite
        if torch.equal(batch.y, target):
            with torch.no_grad():
                run.objective.params[0].fill_(torch.inf)
        return update

    target = next(run.batches.start(5)).y
    run.optimizer.step = step  # type: ignore[method-assign, assignment]
    found = guarded(run, "skip")
    state = State()
    train(found, state, Notes())
    assert state.spikes == [6]
    assert all(bool(w.isfinite().all()) for w in weights(found))
