"""dlrun's functions do what its commands do, and leave the process as they found it."""

from __future__ import annotations

import json
import logging
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import dlrun as package
from dlrun.commands.train.session import session
from dlrun.config import paths
from dlrun.errors import NonFinite, UserError
from dlrun.runs.recorder import RunRecorder
from dlrun.storage import journal, manifest
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.results import results
from tests.conftest import Called
from tests.facts import says

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
Call = Callable[..., Called]
QUIET = ("tracking.enabled=false", "trainer.figures=false")
SHORT = ("+experiment=digits", "trainer.epochs=2", "model.width=8", *QUIET)


def test_a_run_is_that_of_the_command(here: Path, call: Call) -> None:
    run = package.train(*SHORT, "optimizer.lr=0.02")
    assert call("train", *SHORT, "optimizer.lr=0.02").code == 0
    mine, typed = all_runs()
    assert run.folder == mine
    assert mine.summary().metrics == typed.summary().metrics == run.metrics
    assert mine.summary().identity == typed.summary().identity
    assert run.config.optimizer.lr == 0.02
    assert run.summary["status"] == "finished"
    assert run.summary["command"] == f"dlrun train {' '.join(SHORT)} optimizer.lr=0.02"
    again = package.load(run.folder.path)
    x, _ = run.data.validation.gather(torch.arange(3))
    assert torch.equal(again.model(x), run.model(x))


def test_curves_are_the_journal_as_a_table(here: Path) -> None:
    run = package.train(*SHORT)
    table, points = run.curves, journal.curves(run.folder.journal)
    assert {*table.columns} == {"epoch", *points}
    assert table.index.is_monotonic_increasing and table.index.name == "step"
    for name, curve in points.items():
        assert [*table[name].dropna().items()] == curve
    assert table["epoch"].iloc[-1] == 2


def test_a_call_leaves_the_process_as_it_was(here: Path) -> None:
    def state() -> list[object]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        return [
            *map(signal.getsignal, numbers),
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            logging.getLogger().handlers[:],
            GlobalHydra.instance().hydra,
            HydraConfig.instance().cfg,
            Path.cwd(),
        ]

    torch.manual_seed(3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        GlobalHydra.instance().hydra = another = object()
        before = state()
        run = package.train(*SHORT, "trainer.deterministic=true")
        package.resume(run, "trainer.epochs=3")
        assert state() == before and GlobalHydra.instance().hydra is another
    finally:
        torch.set_num_threads(threads)
        GlobalHydra.instance().clear()


@pytest.mark.parametrize("given", ["modle=mlp", "optimizer.lr=abc", "model.width=0"])
def test_a_mistake_raises_the_message_of_the_command(
    given: str, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as mistake:
        package.train(given, *QUIET)
    assert call("train", given, *QUIET).err == f"dlrun: {mistake.value}\n"
    assert mistake.value._render_traceback_() == [f"{type(mistake.value).__name__}: {mistake.value}"]
    monkeypatch.setenv("DLRUN_TRACEBACK", "1")
    says("".join(mistake.value._render_traceback_()), "Traceback", str(mistake.value))
    assert not all_runs()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["-m", "seed=1,2"], ['"-m"', "dlrun.sweep"]),
        (["--config-dir=x"], ["config_dir="]),
        (["seed=1,2"], ["several values", "Call dlrun.sweep"]),
        ([{"seed": 1}], ["{'seed': 1}", '"optimizer.lr=0.01"']),
        (["+experiment=polynomial_capacity"], ["dlrun.sweep('+experiment=polynomial_capacity')"]),
    ],
)
def test_what_is_no_override_is_refused(given: list[str], words: list[str], here: Path) -> None:
    with pytest.raises(UserError) as refused:
        package.train(*given)
    says(str(refused.value), *words)
    with pytest.raises(UserError):
        package.load_sweep("nothing")


def test_a_run_that_fails_raises_what_failed_it(here: Path) -> None:
    with pytest.raises(NonFinite) as failure:
        package.train(*SHORT, "optimizer=sgd", "optimizer.lr=1e30")
    (run,) = all_runs()
    assert run.status() == "failed"
    (note,) = failure.value.__notes__
    assert note == f"The traceback is in {run.log}"
    assert "NonFinite" in run.log.read_text()


def test_an_interrupt_saves_and_the_run_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def point(recorder: RunRecorder, step: int, *given: object) -> None:
        log_point(recorder, step, *given)
        if step == 10:
            signal.raise_signal(signal.SIGINT)

    log_point = RunRecorder.point
    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "point", point)
        with pytest.raises(KeyboardInterrupt):
            package.train(*SHORT, "trainer.log_every=1")
    (run,) = all_runs()
    assert run.status() == "killed" and journal.last_step(run.journal) == 10
    resumed = package.resume(run.id)
    through = package.train(*SHORT, "trainer.log_every=1")
    assert resumed.metrics == through.metrics
    assert resumed.summary["status"] == "finished"


def test_a_thread_trains_and_two_are_refused(here: Path) -> None:
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(package.train(*SHORT).metrics))
    thread.start()
    thread.join()
    assert got == [package.train(*SHORT).metrics]
    with session("train", (), command=()), pytest.raises(UserError, match=r"another thread .* dlrun\.sweep"):
        package.train(*SHORT)


def test_what_a_command_finds_out_once_a_call_finds_out_anew(here: Path) -> None:
    folder = here / "lab"
    folder.mkdir()
    assert not paths.came_with_runs(folder)
    (folder / ".hydra").mkdir()
    with session("train", (), command=()):
        assert paths.came_with_runs(folder)


def test_torchrun_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE=2"):
        package.train(*SHORT)


SWEEP = ("+experiment=digits", "optimizer.lr=0.001,0.01", "seed=range(2)", "trainer.steps=5", *QUIET)


def test_a_sweep_as_tables(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = package.sweep(*SWEEP, "hydra/launcher=batched")
    found = results(sweep.folder)
    assert sweep.status == "finished" and sweep.report.is_file()
    table = sweep.runs
    assert [*table.columns[:3]] == ["optimizer.lr", "seed", "status"]
    for result in found:
        row = table.loc[result.job.n]
        assert (row["seed"], row["id"], row["folder"]) == (result.job.seed, result.run.id, str(result.run.path))
        assert {name: row[name] for name in result.metrics} == result.metrics
    # an oracle: pandas
    means = table.groupby("optimizer.lr")["val/error"].agg(["mean", "std"])
    chosen = sweep.selected
    assert chosen["mean"] == pytest.approx(means["mean"].min())
    summary = sweep.summary.set_index("optimizer.lr")
    assert summary["val/error"].to_dict() == pytest.approx(means["mean"].to_dict())
    assert summary["val/error sd"].to_dict() == pytest.approx(means["std"].to_dict())
    assert [*summary["selected"]] == [True, False] and summary["val/error"].is_monotonic_increasing
    assert sweep.load().folder.path == found[chosen["jobs"][0]].run.path
    assert sweep.load(2).metrics == found[2].metrics
    with pytest.raises(UserError, match="no job 9"):
        sweep.load(9)
    assert manifest.read(sweep.folder).command == found[3].summary.command
    says(found[3].summary.command, "dlrun train -m +experiment=digits", "'seed=range(2)'")
    # the same sweep continues, and is opened again
    capfd.readouterr()
    assert package.sweep(*SWEEP, "hydra/launcher=batched") == sweep
    says(capfd.readouterr().out, "all 4 jobs have ended")
    assert package.load_sweep(sweep.folder.id) == package.resume(sweep) == sweep
    assert len(all_sweeps()) == 1


def test_a_sweep_with_a_failed_job_is_returned(here: Path) -> None:
    lines = ("hydra/launcher=batched", "optimizer=sgd", "optimizer.lr=0.1,1e30", "trainer.steps=5", *QUIET)
    sweep = package.sweep("+experiment=digits", *lines)
    assert sweep.status == "failed"
    assert sorted(sweep.runs["status"]) == ["failed", "finished"]


def test_jobs_of_another_programs_launcher_are_refused(here: Path) -> None:
    with pytest.raises(UserError, match="hydra/launcher=basic"):
        package.sweep(*SWEEP, "hydra/launcher=basic")


def test_all_runs_as_a_table(here: Path, call: Call) -> None:
    assert package.runs().empty
    for seed in (0, 1):
        package.train(*SHORT, f"seed={seed}", "name=tried")
    table = package.runs(where="seed<1")
    (listed,) = json.loads(call("runs", "--where", "seed<1", "--json").out)
    (row,) = table.to_dict("records")
    assert [*table.index] == [listed["id"]]
    assert {name: row[name] for name in listed["metrics"]} == listed["metrics"]
    for name in ("name", "status", "seed", "steps", "train_seconds", "size", "folder"):
        assert row[name] == listed[name]
    assert row["started"].timestamp() == pytest.approx(listed["started"], abs=1e-6)
    both = package.runs(sort="val/loss", descending=True, metric="val/loss")
    assert both["val/loss"].is_monotonic_decreasing and len(both) == 2
    assert "val/error" not in both.columns
    assert [*package.runs(listed["id"]).index] == [listed["id"]]
    assert [*package.runs(last=1)["seed"]] == [1]
    for wrong in ({"where": "seed"}, {"where": "sead=1"}, {"sort": "sead"}, {"metric": "sead"}, {"last": 0}):
        with pytest.raises(UserError):
            package.runs(**wrong)


def test_an_edited_module_is_imported_anew(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = "from torch import nn\nfrom sizes import WIDTH\n\n\nclass Mine(nn.Sequential):\n"
    model += "    def __init__(self, classes):\n"
    model += "        super().__init__(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))\n"
    (here / "mine.py").write_text(model)
    (here / "sizes.py").write_text("WIDTH = 4\n")
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mine.yaml").write_text("_target_: mine.Mine\n")
    lines = ("dataset=digits", "model=mine", "trainer.steps=2", *QUIET)
    first = package.train(*lines).summary
    again = package.train(*lines).summary
    assert "imported anew" not in capfd.readouterr().out
    (here / "sizes.py").write_text("WIDTH = 16\n")
    edited = package.train(*lines).summary
    # the module itself, and the one that has imported a name of it
    says(capfd.readouterr().out, "mine.py has changed", "sizes.py has changed")
    assert first["identity"] == again["identity"] != edited["identity"]
    assert (first["parameters"], edited["parameters"]) == (64 * 4 + 4 + 4 * 10 + 10, 64 * 16 + 16 + 16 * 10 + 10)


def test_a_folder_of_configurations_is_added(here: Path) -> None:
    (here / "more/experiment").mkdir(parents=True)
    (here / "more/experiment/wide.yaml").write_text("# @package _global_\nmodel:\n  width: 9\n")
    run = package.train("+experiment=wide", "trainer.steps=2", *QUIET, config_dir="more")
    assert run.config.model.width == 9
    says(run.summary["command"], "dlrun train --config-dir more +experiment=wide")


def test_a_script_without_a_terminal_prints_lines_and_no_codes(here: Path) -> None:
    # the guide's first lines, as a script: no guard of its main module is needed
    script = here / "study.py"
    script.write_text(
        "import sys, dlrun\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
        f"run = dlrun.train(*{SHORT!r})\n"
        f"sweep = dlrun.sweep(*{SHORT!r}, 'seed=0,1')\n"
        "print(run.folder.id, sweep.status)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=180, cwd=here)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) < 45
    assert re.fullmatch("[a-z]{8} finished", done.stdout.splitlines()[-1])
    assert not done.stderr


def test_the_guide_runs_as_it_stands(here: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    code = "\n".join(blocks).replace('"+experiment=digits"', f'"+experiment=digits", *{QUIET!r}')
    names: dict[str, object] = {}
    exec(code, names)  # the names that the guide makes
    run, table = names["run"], names["runs"]
    assert isinstance(run, type(names["same"])) and isinstance(table, pd.DataFrame)
    assert run.summary["steps"] == 12 * 21
    assert len(names["sweep"].runs) == 4 and len(table) == 5


def test_the_room_of_runs_is_a_room_still(here: Path) -> None:
    import dlrun.runs
    from dlrun.runs import reload

    assert dlrun.runs.reload is reload and callable(dlrun.runs)
