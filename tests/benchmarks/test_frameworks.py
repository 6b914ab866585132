"""The benchmarks beside other trainers in small: the work is the same, the clock is right, the report says it all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import commands, frameworks, gpu, processes, report, targets, worker
from benchmarks.peers import ours, peak, works
from benchmarks.peers.watch import Watch
from benchmarks.report import Figure, Section
from dlrun.engine.steppers import EagerStepper
from dlrun.storage.rundir import RunDir
from tests.facts import says
from tests.summaries import summarise

pytestmark = pytest.mark.usefixtures("here")
IMAGES = torch.randn(200, 1, 28, 28), torch.arange(200) % 10
TOKENS = torch.arange(2000) % 65


def small(name: str) -> works.Work:
    return replace(works.work(name, 3, IMAGES, TOKENS), batch_size=4)


def test_a_step_is_timed_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, now = Watch(), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)
    monkeypatch.setattr("benchmarks.peers.watch.faults", lambda: int(4 * now[0]))
    for steps, moment in ((0, 0.0), (5, 50.0), (10, 60.0), (20, 80.0), (30, 90.0)):
        now[0] = moment
        watch.at(steps)
    assert watch.each() == {"wall": 1.5, "cpu": 0.75, "faults": 6.0}


def test_each_call_of_a_watched_model_begins_a_step() -> None:
    watch = Watch()
    model = watch.seen(nn.Linear(2, 1))
    for _ in range(3):
        model(torch.zeros(1, 2))
    assert watch.each()["wall"] > 0
    watch = Watch(every=10)
    for step in range(31):
        watch.begins(step)
    assert len(watch._marks) == 4
    with pytest.raises(ValueError, match="0 steps were noted"):
        Watch().each()


def test_a_work_is_the_same_in_another_process(tmp_path: Path) -> None:
    for name in works.NAMES:
        work = works.work(name, 3, IMAGES, TOKENS)
        works.save(work, tmp_path / "work.pt")
        again = works.load(tmp_path / "work.pt")
        assert torch.equal(work.x, again.x) and torch.equal(work.y, again.y)
        kept = ("name", "steps", "batch_size", "lr", "threads", "criterion", "log_every")
        assert all(getattr(work, key) == getattr(again, key) for key in kept)
        for a, b in zip(work.fresh().parameters(), again.fresh().parameters(), strict=True):
            assert torch.equal(a, b)


def test_the_least_traffic_is_counted() -> None:
    work = works.work("polynomial", 3, IMAGES, TOKENS)
    # ten numbers read twice and written, their gradients written and read; 32 samples of 9 + 1; 32 outputs kept
    assert works.traffic(work) == 5 * 4 * 10 + 4 * 32 * 10 + 2 * 4 * 32


@pytest.mark.parametrize("name", works.NAMES)
def test_dlrun_trains_as_many_parameters_as_the_bare_loop(name: str) -> None:
    work = small(name)
    run = ours.built(work)
    assert run.parameters == sum(p.numel() for p in work.fresh().parameters())
    assert run.training.batches.size == work.batch_size and run.training.plan.steps == 3


def test_all_works_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--quick` does it, but in this process."""

    def compare(work: works.Work, programs: Sequence[str], repeats: int) -> dict[str, list[dict[str, float]]]:
        return {name: [worker.once(import_module(f"benchmarks.peers.{name}"), work)] for name in programs}

    for name, value in (("SIZE", 64), ("BYTES", 1 << 12), ("SECONDS", 0.0)):
        monkeypatch.setattr(peak, name, value)
    monkeypatch.setattr(frameworks, "compare", compare)
    monkeypatch.setattr(frameworks, "installed", dict)
    monkeypatch.setattr("benchmarks.step.images", lambda: (IMAGES[0].repeat(3, 1, 1, 1), IMAGES[1].repeat(3), "random"))
    section = frameworks.measure(quick=True)
    assert "not installed here: make bench-peers" in section.notes
    assert {figure.goal for figure in section.figures if figure.goal} == {
        "convnet",
        "convnet_peak",
        "mlp",
        "plane",
        "polynomial",
        "gpt",
    }
    assert sum(figure.what.endswith(": dlrun / bare") for figure in section.figures) == len(works.NAMES)


def test_processes_take_turns_and_who_fails_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    taken = frameworks.compare(small("polynomial"), ("bare", "nothing"), 2)
    assert taken.keys() == {"bare"} and len(taken["bare"]) == 2
    says(capsys.readouterr().err, "left out: nothing:")


@pytest.mark.slow
@pytest.mark.skipif(
    "DLRUN_PEERS" not in os.environ,
    reason="a minute and a half of other trainers: make bench-peers, then DLRUN_PEERS=$PWD/.venv-peers make test",
)
@pytest.mark.parametrize("name", frameworks.PEERS)
def test_a_peer_trains(name: str) -> None:
    work = works.work("polynomial", 3, IMAGES, TOKENS)
    assert len(frameworks.compare(work, (name,), 1)[name]) == 1


def test_what_was_not_compiled_is_not_measured_as_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.execution.compiled.make_stepper", EagerStepper)
    with pytest.raises(RuntimeError, match="could not be compiled"):
        worker.once(import_module("benchmarks.peers.compiled"), small("polynomial"))


def test_a_language_model_is_told_in_tokens() -> None:
    taken = {
        name: [{"wall": wall, "cpu": wall, "faults": 0.0, "megabytes": 1.0, "flop": 1e9, "gemm": 1e12, "copied": 1e9}]
        for name, wall in (("bare", 0.010), ("ours", 0.008), ("compiled", 0.005), ("peak", 1.0))
    }
    found = frameworks.figures(works.work("gpt", 3, IMAGES, TOKENS), taken)
    goals = {figure.goal: figure.number for figure in found if figure.goal}
    assert goals == {"gpt": pytest.approx(1.25), "gpt_compiled": pytest.approx(2.0)}


def test_the_report_has_ratios_and_the_share_of_the_peaks() -> None:
    def took(wall: float, **more: float) -> list[dict[str, float]]:
        return [{"wall": wall, "cpu": wall, "faults": 5000.0, "megabytes": 300.0, "whole": 1.0} | more] * 3

    taken = {
        "bare": took(0.010),
        "ours": took(0.004, flop=1e9),
        "lightning": took(0.011),
        "peak": took(1.0, gemm=1e12, copied=1e10),
    }
    work = works.work("convnet", 3, IMAGES, TOKENS)
    found = {figure.what.rpartition(": ")[2]: figure for figure in frameworks.figures(work, taken)}
    assert found["bare loop"].value.startswith("10000 µs (10000 to 10000, n = 3) a step; 10 % and ")
    assert found["dlrun / bare"].value.startswith("0.400 (0.400 to 0.400, n = 3), -6000 µs; CPU 0.400; 25 % and ")
    assert (found["dlrun / bare"].goal, found["dlrun / bare"].number) == ("convnet", pytest.approx(0.4))
    assert found["… of the matrix products' peak"].number == pytest.approx(25)
    assert found["Lightning / bare"].value.startswith("1.100 ") and not found["Lightning / bare"].goal


def test_a_whole_process_is_measured(here: Path) -> None:
    small, large = (processes.whole([sys.executable, "-c", f"x = b'x' * {n} * 2**20"], here) for n in (1, 200))
    assert 190 < large.megabytes - small.megabytes < 210 and large.wall > 0 and large.cpu > 0
    with pytest.raises(RuntimeError, match="failed with 3"):
        processes.whole([sys.executable, "-c", "raise SystemExit(3)"], here)


def test_whole_processes_are_compared_with_a_bare_one() -> None:
    taken = {
        "a bare loop with `torch.optim`": [processes.Whole(4.0, 3.0, 300.0)],
        "`dlrun train`": [processes.Whole(3.0, 2.1, 250.0)],
    }
    row = processes.figures(taken)[-1]
    assert row.value == "CPU 2.10 s (n = 1); 3.00 s; 250 MiB; CPU / bare 0.70"
    assert (row.goal, row.number) == ("process", 2.1)


def test_runs_on_a_gpu_are_timed_by_their_own_clocks(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    def summary(folder: Path, seconds: float) -> RunDir:
        folder.mkdir(parents=True)
        summarise(RunDir(folder), train_seconds=seconds, metrics={"test/error": 0.011})
        return RunDir(folder)

    def call(command: list[str], here: Path) -> None:
        for n in range(2):
            summary(here / "outputs" / "sweeps" / "day" / "time" / str(n), 3.0)

    monkeypatch.setattr(commands, "train", lambda here, *overrides: summary(here / "run", 0.5))
    monkeypatch.setattr(commands, "call", call)
    found = {figure.goal or figure.what: figure for figure in gpu.measure(quick=True).figures}
    assert found["gpu_run"].number == 0.5 and found["gpu_hundred"].number == 6.0
    assert found["… test error"].value == "1.10 % (1.10 to 1.10, n = 2)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    nothing = gpu.measure()
    assert not nothing.figures and "no GPU" in nothing.notes


def test_goals_are_judged_by_what_was_measured_last(tmp_path: Path) -> None:
    def write(name: str, day: int, *figures: Figure) -> None:
        report.write(Section(name, "a", "b", [*figures], when=datetime(2030, 1, day)), tmp_path / "RESULTS.md")

    write("step", 1, Figure("x", "0.30", goal="convnet", number=0.30), Figure("y", "9 µs", goal="mlp", number=9.0))
    write("frameworks", 2, Figure("x", "0.50", goal="convnet", number=0.50))
    write("step", 3, Figure("y", "8 µs", goal="mlp", number=8.0), Figure("without a goal", "1"))
    section = targets.measure(folder=tmp_path / "results")
    found = {figure.what: figure for figure in section.figures}
    assert len(found) == len(targets.GOALS)
    convnet, mlp = found[targets.GOALS["convnet"].work], found[targets.GOALS["mlp"].work]
    assert convnet.value.startswith("0.50 [frameworks, 2030-01-02") and convnet.met is False
    assert mlp.value.startswith("8 µs [step, 2030-01-03") and mlp.met
    left = found[targets.GOALS["gpu_run"].work]
    assert left.value == "not measured" and left.met is None
