"""The profile of a run: what it sees, what it leaves in the folder, and that it changes nothing else."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.execution import profiler
from dlrun.execution.profiler import OUTSIDE, STEPS, Operator, Profile, profile_steps, window
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import says

QUIET = ("tracking.enabled=false", "trainer.figures=false", "trainer.threads=1")
Call = Callable[..., Called]
DRAW = profiler._draw


def seen(plan: Plan, folder: Path, *, block: int = 1, start: int = 0, device: str = "cpu") -> State:
    """Take steps of one matrix product each, in blocks, as the loop does."""
    state = State(step=start)
    a = torch.randn(8, 8, device=device)
    with profile_steps(state, lambda: False, plan=plan, device=torch.device(device), folder=folder) as stop:
        while state.step < plan.steps and not stop():
            for _ in range(block):
                a @ a
            state.step += block
    return state


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture of the last test is enough."""
    monkeypatch.setattr(profiler, "_draw", lambda found, path: None)


def steps_of(folder: Path) -> list[str]:
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    return [e["name"] for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]


def plan(steps: int, evaluate_every: int = 1000) -> Plan:
    return Plan(steps, per_epoch=25, log_every=10, evaluate_every=evaluate_every)


def test_twenty_steps_are_traced_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen(plan(100), tmp_path / "profile")
    assert steps_of(tmp_path / "profile") == [f"step {n}" for n in range(11, 31)]
    text = (tmp_path / "profile" / "steps.txt").read_text()
    assert "20 steps from step 11 on" in text and OUTSIDE in text and text == capsys.readouterr().out
    products = next(line.split() for line in text.splitlines() if line.split()[0] == "aten::mm")
    assert products[-1] == "1"  # one call a step


def test_operators_and_what_is_outside_of_them_make_up_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, found = profiler._keep, list[Profile]()
    monkeypatch.setattr(profiler, "_keep", lambda watch, folder: (found.append(watch.found), keep(watch, folder)))
    seen(plan(100), tmp_path)
    (it,) = found
    trace = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))
    ranges = [e["dur"] * 1e-6 for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    assert it.steps * sum(o.seconds for o in it.operators) == pytest.approx(sum(ranges), rel=0.01)
    assert it.before and not it.kernels


def test_the_longest_operators_are_named_and_kernels_have_rows_of_their_own() -> None:
    operators = [Operator(f"aten::op{n}", 1e-6 * (30 - n), 1.0) for n in range(20)]
    kernel = Operator("sgemm", 5e-5, 2.0)
    lines = Profile(11, 20, 1e-3, 8e-4, operators, [kernel]).text().splitlines()
    assert lines[0] == "  where a step goes: 20 steps from step 11 on, 1 ms each, 800 µs without the profiler"
    rows = [re.split(r"  +", line.strip()) for line in lines[1:]]
    assert rows[0] == ["on the processor", "µs a step", "share", "calls a step"]
    assert rows[1] == ["aten::op0", "30.0", "3.0%", "1"] and len(rows) == 1 + 15 + 2 + 1 + 3
    assert rows[16] == ["5 others", "65.0", "6.5%", "5"] and rows[17] == ["together", "410.0", "41.0%", "20"]
    assert rows[19][0] == "on the device" and rows[20] == ["sgemm", "50.0", "5.0%", "2"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_of_a_gpu_are_counted(tmp_path: Path) -> None:
    seen(plan(100), tmp_path, device="cuda")
    text = (tmp_path / "steps.txt").read_text()
    assert "on the device" in text and "gemm" in text.partition("on the device")[2]


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (2, 2), (6, 4), (25, 17)])
def test_a_short_run_is_traced_as_far_as_it_goes(tmp_path: Path, steps: int, expected: int) -> None:
    seen(plan(steps), tmp_path)
    assert len(steps_of(tmp_path)) == expected


def test_blocks_of_steps_are_ranges_and_their_steps_count(tmp_path: Path) -> None:
    seen(plan(100), tmp_path, block=10)
    assert steps_of(tmp_path) == ["step 11", "step 21"]
    assert "20 steps from step 11 on" in (tmp_path / "steps.txt").read_text()


def test_a_resumed_run_is_traced_after_its_own_warm_up(tmp_path: Path) -> None:
    seen(plan(100), tmp_path, start=60)
    assert steps_of(tmp_path)[0] == "step 71"
    seen(plan(100), tmp_path, start=100)  # no step: what was found stays
    assert steps_of(tmp_path)[0] == "step 71"


def test_no_validation_falls_into_the_window_if_that_can_be() -> None:
    first, last = window(plan(1000, evaluate_every=30), 0)
    assert last - first == STEPS and not any(step % 30 == 0 for step in range(first + 1, last + 1))
    assert window(plan(1000, evaluate_every=7), 0) == (10, 30)


def test_no_failure_of_the_profiler_is_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no counters here")

    for name in ("torch.profiler.profile.start", "torch.profiler.profile.stop"):
        with monkeypatch.context() as patch:
            patch.setattr(name, broken)
            assert seen(plan(40), tmp_path).step == 40
        says(capsys.readouterr().err, "could not be profiled: RuntimeError: no counters here")
    (tmp_path / "file").write_text("")
    assert seen(plan(40), tmp_path / "file").step == 40
    says(capsys.readouterr().err, "could not be profiled")


def test_a_profiled_run_is_the_same_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "_draw", DRAW)
    runs = []
    for on in ("true", "false"):
        done = call("train", "trainer.steps=30", f"trainer.profile={on}", *QUIET)
        assert done.code == 0, done
        runs.append(all_runs()[-1].path)
    one, two = (RunDir(path).summary() for path in runs)
    assert one.metrics == two.metrics and one.identity == two.identity
    assert {f.name for f in (runs[0] / "profile").iterdir()} == {"trace.json.gz", "steps.txt", "steps.png"}
    assert not (runs[1] / "profile").exists()
    assert "where a step goes" in (runs[0] / "train.log").read_text()
