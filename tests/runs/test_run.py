"""A whole run, from a command line to its folder."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dlrun as package
from dlrun.storage.identity import essential
from dlrun.storage.journal import curves, read
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says
from tests.processes import Process

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false")


def only_run() -> RunDir:
    runs = all_runs()
    assert len(runs) == 1
    return runs[0]


@pytest.fixture
def digits(call: Call) -> RunDir:
    """A short run on digits, finished."""
    done = call("train", "trainer.epochs=3", *QUICK)
    assert done.code == 0, done.err
    return only_run()


def test_a_bare_train_leaves_a_folder_that_is_the_truth_about_it(digits: RunDir) -> None:
    summary = digits.summary()
    assert summary.status == digits.status() == "finished"
    contract = "status metrics last identity best_step steps seconds train_seconds seed parameters device mlflow_run_id"
    assert set(contract.split()) | {"test_reads"} <= set(summary.to_dict())
    assert summary.steps == 63
    assert summary.test_reads == 1
    assert summary.parameters == 9610
    assert not summary.uploaded  # tracking is off: `dlrun ui` leaves it out
    for split in ("train", "val", "test"):
        assert summary.metrics[f"{split}/accuracy"] == pytest.approx(1 - summary.metrics[f"{split}/error"])
    assert 0.5 < summary.metrics["test/accuracy"] <= 1
    assert {"last.pt", "best.pt"} == {f.name for f in digits.last.parent.iterdir()}
    assert (digits.path / ".hydra" / "overrides.yaml").exists()


def test_the_journal_holds_the_curves_and_the_reads(digits: RunDir) -> None:
    found = curves(digits.journal)
    assert [step for step, _ in found["val/loss"]] == [21, 42, 63]
    assert found["train/loss"][-1][0] == 63
    assert not any(name.startswith("test/") for name in found)
    events = [record["event"] for record in read(digits.journal)[0] if "event" in record]
    assert events == ["start", "test_read", "end"]


def test_the_perplexity_of_training_is_a_curve_where_the_loss_is_the_likelihood(here: Path, call: Call) -> None:
    (here / "book.txt").write_text("a line of a book\n" * 100)
    text = ("dataset=text", "dataset.path=book.txt", "dataset.context=8", "model=gpt", "model.size=1", *QUICK)
    text += ("trainer.steps=4", "trainer.log_every=2")
    assert call("train", *text).code == 0
    assert call("train", *text, "loss.label_smoothing=0.1").code == 0
    plain, smoothed = (curves(run.journal) for run in all_runs())
    assert plain["train/perplexity"] == [(step, pytest.approx(math.exp(loss))) for step, loss in plain["train/loss"]]
    assert "train/loss" in smoothed and "train/perplexity" not in smoothed


def test_the_load_of_the_machine_is_in_the_journal(call: Call) -> None:
    pytest.importorskip("psutil")
    done = call("train", "trainer.epochs=1", "tracking.system_metrics=true", *QUICK)
    assert done.code == 0, done.err
    found = curves(only_run().journal)
    assert len(found["system/cpu_utilization_percentage"]) >= 1
    assert 0 < found["system/system_memory_usage_percentage"][0][1] <= 100


def test_the_selected_weights_are_those_of_the_best_validation(digits: RunDir) -> None:
    errors = dict(curves(digits.journal)["val/error"])
    summary = digits.summary()
    losses = dict(curves(digits.journal)["val/loss"])
    assert summary.best_step == min(errors, key=lambda step: (errors[step], losses[step]))
    assert summary.metrics["val/error"] == errors[summary.best_step]
    assert summary.last["val/error"] == errors[63]


def test_the_run_is_shown_as_a_head_and_a_table(call: Call) -> None:
    done = call("train", "trainer.epochs=1", *QUICK)
    says(done.out, "digits-mlp", "1297 train", "9,610 parameters", "FLOP a step", "samples/s", "test", "outputs/runs")
    said = [line for line in done.out.splitlines() if line.strip()]
    assert set(said) <= set(only_run().log.read_text().splitlines())


def test_the_same_seed_gives_the_same_run_and_another_seed_another(call: Call) -> None:
    for seed in (0, 0, 1):
        assert call("train", "trainer.epochs=1", f"seed={seed}", *QUICK).code == 0
    a, b, c = (run.summary() for run in all_runs())
    assert a.metrics == b.metrics != c.metrics
    assert a.identity == b.identity != c.identity
    assert a.data["fingerprint"] == c.data["fingerprint"]


def test_bookkeeping_is_no_part_of_the_identity(call: Call) -> None:
    call("train", "trainer.epochs=1", *QUICK)
    call("train", "trainer.epochs=1", "name=other", "trainer.checkpoint_every=5", "evaluation.batch_size=7", *QUICK)
    call("train", "trainer.epochs=1", "optimizer.lr=0.002", *QUICK)
    same, also, other = (run.summary().identity for run in all_runs())
    assert same == also != other


def test_without_a_validation_split_the_last_weights_are_tested(call: Call) -> None:
    assert call("train", "trainer.epochs=2", "dataset.validation_size=0", *QUICK).code == 0
    summary = only_run().summary()
    assert summary.best_step == summary.steps
    assert summary.metrics["train/loss"] == summary.last["train/loss"]
    assert not any(name.startswith("val/") for name in summary.metrics)
    assert summary.test_reads == 1


def test_the_test_split_stays_sealed_on_request(call: Call) -> None:
    assert call("train", "trainer.epochs=1", "evaluation.test=never", *QUICK).code == 0
    assert only_run().summary().test_reads == 0
    assert not any(name.startswith("test/") for name in only_run().summary().metrics)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_no_number_depends_on_the_evaluation_batch_size(split: str, digits: RunDir, call: Call) -> None:
    tables = [
        call("test", digits.id, "--split", split, "--batch-size", size).out.splitlines()[1:4]
        for size in ("1", "7", "10000")
    ]
    assert tables[0] == tables[1] == tables[2]
    assert digits.summary().test_reads == (4 if split == "test" else 1)


def test_early_stopping_averages_and_accumulation_go_through(call: Call) -> None:
    extras = ("trainer.ema=0.9", "trainer.patience=2", "trainer.accumulate=2", "trainer.clip=0.5")
    assert call("train", "trainer.epochs=4", *extras, *QUICK).code == 0
    norms = [value for _, value in curves(only_run().journal)["grad_norm"]]
    assert max(norms) > 0.5


def test_logged_gradients_are_curves_and_a_part_of_the_identity(call: Call, verify_resume: Call) -> None:
    argv = ("trainer.steps=40", "trainer.log_every=20", *QUICK)
    for value in ("true", "false"):
        assert call("train", *argv, f"trainer.log_gradients={value}").code == 0
    logged, plain = all_runs()
    found = {name: points for name, points in curves(logged.journal).items() if name.startswith("grad_norm")}
    assert [*found] == ["grad_norm", "grad_norm/layers.0", "grad_norm/layers.2"]
    for (step, whole), *parts in zip(*found.values(), strict=True):
        assert whole == pytest.approx(math.hypot(*(value for _, value in parts)), rel=1e-6), step
    assert logged.summary().metrics == plain.summary().metrics
    assert logged.summary().identity != plain.summary().identity  # a job without the curves is no substitute
    assert verify_resume(*argv, "trainer.log_gradients=true").code == 0


def test_a_key_that_older_runs_lack_is_no_part_of_their_identity() -> None:
    assert essential({"trainer": {"log_gradients": False}}) == essential({"trainer": {}})
    assert essential({"evaluation": {"views": None}}) == essential({"evaluation": {}})


def test_accumulation_changes_no_result(call: Call) -> None:
    for parts in (1, 4):
        call("train", "trainer.steps=20", f"trainer.accumulate={parts}", *QUICK)
    a, b = (run.summary().metrics for run in all_runs())
    assert a == pytest.approx(b, rel=1e-4)


def test_fast_takes_two_steps_of_everything(call: Call) -> None:
    assert call("train", "trainer.fast=true", *QUICK).code == 0
    summary = only_run().summary()
    assert summary.steps == 2
    assert summary.data["test"] <= 128


def test_overfit_batches_brings_the_loss_down(call: Call) -> None:
    assert call("train", "trainer.overfit_batches=1", "trainer.epochs=150", "optimizer.lr=0.01", *QUICK).code == 0
    losses = curves(only_run().journal)["train/loss"]
    assert losses[-1][1] < 0.01


def test_a_check_says_how_many_steps_a_wall_time_may_be(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.commands.check.steps_within", lambda run, minutes: int(minutes * 100))
    done = call("check", "trainer.minutes=1.5")
    assert done.code == 0, done.err
    says(done.out, "150 of 64 samples", "1 min 30 s of training; the run measures its steps itself")


def test_a_wall_time_becomes_a_horizon_that_is_kept(call: Call) -> None:
    assert call("train", "trainer.minutes=0.01", "schedule=cosine", *QUICK).code == 0
    summary = only_run().summary()
    assert summary.steps == summary.horizon > 20
    assert curves(only_run().journal)["lr"][-1][1] < 1e-5


def test_a_diverging_run_fails_and_names_the_step(call: Call) -> None:
    done = call("train", "optimizer=sgd", "optimizer.lr=1e30", *QUICK)
    assert done.code == 1
    says(done.err, "The loss of step")
    assert "Traceback" not in done.err
    assert only_run().status() == "failed"
    assert "NonFinite" in only_run().summary().error


def test_weights_of_another_run_are_where_a_run_starts(digits: RunDir, call: Call) -> None:
    done = call("train", f"init_from={digits.id}", "trainer.steps=1", "optimizer.lr=1e-9", *QUICK)
    assert done.code == 0, done.err
    started = all_runs()[-1].summary().metrics
    assert started["test/loss"] == pytest.approx(digits.summary().metrics["test/loss"], rel=1e-4)
    other = call("train", f"init_from={digits.id}", "model.hidden=[8]", *QUICK)
    refuses(other, "of another model")
    assert len(all_runs()) == 2


def test_load_gives_a_notebook_the_model_its_data_and_its_config(digits: RunDir) -> None:
    run = package.load(digits.id)
    assert run.data.test is not None
    batch = run.data.test.gather(torch.arange(len(run.data.test)))
    with torch.no_grad():
        accuracy = float((run.model(batch.x).argmax(1) == batch.y).double().mean())
    assert accuracy == pytest.approx(run.summary["metrics"]["test/accuracy"])
    assert run.config.trainer.epochs == 3


def test_predict_answers_raw_samples_as_csv(digits: RunDir, call: Call, here: Path) -> None:
    import numpy as np

    data = package.load(digits.id).data
    assert data.test is not None
    x, y = data.test.gather(torch.arange(50))
    raw = torch.as_tensor(np.linspace(0, 16, 64)).reshape(1, 1, 8, 8).float()
    scale = data.prepare(raw) - data.prepare(torch.zeros_like(raw))
    unit = float(scale.flatten()[-1]) / 16
    np.save(here / "samples.npy", ((x - data.prepare(torch.zeros(1, 1, 8, 8))) / unit).flatten(1).numpy())
    done = call("predict", digits.id, "samples.npy")
    assert done.code == 0, done.err
    rows = [line.split(",") for line in done.out.splitlines()]
    assert rows[0][0] == "prediction"
    assert np.mean([row[0] == str(int(label)) for row, label in zip(rows[1:], y, strict=True)]) > 0.8
    assert all(sum(map(float, row[1:])) == pytest.approx(1, abs=1e-4) for row in rows[1:])
    np.savetxt(here / "samples.csv", np.load(here / "samples.npy"), delimiter=",")
    assert call("predict", digits.id, "samples.csv", "--output", "out.csv").code == 0
    assert (here / "out.csv").read_text().splitlines()[1].split(",")[0] == rows[1][0]
    np.save(here / "wrong.npy", np.zeros((2, 3), "float32"))
    wrong = call("predict", digits.id, "wrong.npy")
    refuses(wrong, "[2, 3]")


def test_runs_lists_filters_sorts_and_deletes(call: Call) -> None:
    for seed in (0, 1, 2):
        call("train", "trainer.epochs=1", f"seed={seed}", *QUICK)
    ids = [run.id for run in all_runs()]
    says(call("runs").out, *ids)
    found: list[dict[str, Any]] = json.loads(call("runs", "--json", "--sort", "test/error", "--descending").out)
    errors = [row["metrics"]["test/error"] for row in found]
    assert errors == sorted(errors, reverse=True)
    one = json.loads(call("runs", "--json", "--where", "seed=1").out)
    assert [row["id"] for row in one] == [ids[1]]
    assert call("runs", "--where", "sede=1").code == 2
    asked = call("runs", ids[0], "--delete")
    refuses(asked, "--yes")
    assert call("runs", ids[0], "--delete", "--yes").code == 0
    assert [run.id for run in all_runs()] == ids[1:]


def test_figures_are_in_the_folder(call: Call) -> None:
    assert call("train", "trainer.epochs=1", "tracking.enabled=false").code == 0
    assert {f.name for f in only_run().figures.iterdir()} >= {"learning_curves.png", "confusion.png"}


@pytest.mark.parametrize("experiment", ["digits", "polynomial", "moons"])
def test_experiments_that_need_no_files_run_in_two_steps(experiment: str, call: Call) -> None:
    done = call("train", f"+experiment={experiment}", "trainer.fast=true", *QUICK)
    assert done.code == 0, done.err
    assert only_run().summary().name == experiment


def test_check_says_what_would_run_and_leaves_nothing(call: Call, here: Path) -> None:
    done = call("check", "+experiment=digits")
    assert done.code == 0, done.err
    says(done.out, "9,610 parameters")
    assert not all_runs()


def test_on_a_full_disk_training_goes_on_and_the_end_waits_for_space(
    call: Call, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dlrun.storage import checkpoint

    save, tries = checkpoint.save, iter(range(100))

    def full(path: Path, content: dict[str, Any]) -> None:
        if next(tries) < 3:
            raise OSError(28, "No space left on device")
        save(path, content)

    monkeypatch.setattr(checkpoint, "save", full)
    done = call("train", "trainer.epochs=2", "trainer.checkpoint_every=30", *QUICK)
    assert done.code == 0
    says(done.err, "the one before it stays", "in memory only")
    assert only_run().last.exists()
    assert only_run().best.exists()


def test_one_ctrl_c_gives_up_weights_that_cannot_be_written(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlrun.storage import checkpoint

    tries = iter(range(100))

    def full(path: Path, content: dict[str, Any]) -> None:
        if next(tries) == 3:
            signal.raise_signal(signal.SIGINT)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    done = call("train", "trainer.epochs=2", "trainer.checkpoint_every=30", *QUICK)
    says(done.err, "in memory only")
    assert done.code == 130
    assert only_run().status() == "killed"


def test_a_folder_holds_one_run(here: Path, call: Call) -> None:
    assert call("train", "hydra.run.dir=mine", "trainer.steps=2", *QUICK).code == 0
    run = RunDir(here / "mine")
    before = run.config.read_bytes(), run.journal.read_bytes()
    done = call("train", "hydra.run.dir=mine", "trainer.steps=3", *QUICK)
    refuses(done, "holds a run already", f"dlrun resume {run.path}")
    assert (run.config.read_bytes(), run.journal.read_bytes()) == before
    assert call("resume", run.id, "trainer.steps=3").code == 0
    assert run.summary().steps == 3


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_job_is_sealed_wherever_its_sweep_lies(launcher: str, here: Path, call: Call) -> None:
    overrides = ("hydra.sweep.dir=elsewhere", f"hydra/launcher={launcher}", "optimizer.lr=0.1,0.2", "trainer.steps=2")
    options = ("hydra/sweeper=basic",) if launcher == "basic" else ()
    done = call("train", "-m", *overrides, *options, "evaluation.test=final", *QUICK)
    assert done.code == 0, done.err
    jobs = [RunDir(here / "elsewhere" / n) for n in "01"]
    assert [(job.summary().kind, job.of_a_sweep) for job in jobs] == [("job", True)] * 2
    tested = [job.summary().test_reads for job in jobs]
    assert sum(tested) == (launcher == "local")
    sealed = jobs[tested.index(0)]
    assert sealed.id == f"{here}/elsewhere/{sealed.path.name}"
    done = call("test", sealed.id)
    refuses(done, "sealed")


@pytest.mark.parametrize("stream", ["head", "full"])
def test_nobody_reading_stops_no_run(stream: str, here: Path) -> None:
    command = [sys.executable, "-m", "dlrun", "train", "trainer.epochs=2", *QUICK]
    with Path("/dev/full").open("w") as full:
        output = full if stream == "full" else subprocess.PIPE
        process = Process(command, cwd=here, stdout=output, stderr=subprocess.PIPE, text=True)
        if process.stdout:
            process.stdout.close()
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert only_run().status() == "finished"
    assert "test" in only_run().log.read_text()
