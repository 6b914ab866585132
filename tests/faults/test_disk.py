"""A disk that is full, forbidden, or loses its power while a run or sweep writes to it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.storage import journal
from tests import processes
from tests.faults import breaking
from tests.faults.judging import Trial
from tests.faults.victims import RUN, STEPS, SWEEP

LIMITS = {"space": "size=40m", "inodes": "size=60m,nr_inodes=600"}


def reached(trial: Trial, step: int) -> Callable[[], bool]:
    return lambda: any((journal.last_step(run.journal) or 0) >= step for run in trial.victim.jobs)


def about_to_write(trial: Trial, main: processes.Process, what: str) -> None:
    """Wait until a file of this kind is written soon."""
    here, draw = trial.victim.here, trial.chance.randrange
    first: dict[str, Callable[[], bool]] = {
        "checkpoint": reached(trial, draw(60, STEPS)),
        "journal": reached(trial, draw(20, STEPS)),
        "summary": reached(trial, STEPS - draw(1, 40)),
        "manifest": lambda: (here / "outputs/sweeps").is_dir(),
        "figure": lambda: any(here.glob("outputs/runs/*/*/figures")) or reached(trial, STEPS)(),
        "store": lambda: (here / "outputs/mlflow.db").exists() or reached(trial, STEPS)(),
    }
    trial.begun(main, of=first[what])
    trial.moment({"manifest": 0.05, "store": 0.5}.get(what, 0.1))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("what", ["checkpoint", "journal", "summary", "manifest", "figure", "store"])
def test_full_disk(trial: Trial, what: str, limit: str) -> None:
    disk = trial.stack.enter_context(breaking.small_disk(trial.place / "small", LIMITS[limit]))
    victim = trial.lay(disk / "lab")
    words = SWEEP if what == "manifest" else RUN
    more = ["trainer.figures=true"] if what == "figure" else []
    main = victim.start(*words, *more)
    about_to_write(trial, main, what)
    before = trial.checkpoints()
    with breaking.full(disk, inodes=limit == "inodes", spare=trial.chance.choice([0, trial.chance.randrange(4000)])):
        trial.moment(4)
        trial.kept(before)
    trial.ends(main, 0, 1, 2)
    if what == "manifest" and main.returncode != 0:
        # nothing had begun, or some of it: the same command goes on
        trial.check(victim.call(*words) == 0, "the same command again")
    trial.kept(before)
    trial.resumed(words, jobs=words is SWEEP)
    trial.stored_once()
    left = [str(path) for path in disk.rglob(".*") if path.is_file() and path.suffix[1:].isdigit()]
    trial.check(not left, f"temporary files are left: {left}")
    trial.alone()
    trial.conclude()


@pytest.mark.parametrize("where", ["run", "outputs"])
def test_forbidden(trial: Trial, where: str) -> None:
    victim = trial.victim
    main = victim.start(*RUN, before=breaking.ORDINARY)
    trial.begun(main)
    trial.moment(1)
    before = trial.checkpoints()
    run = victim.runs[0].path
    folders = [run, run / "checkpoints", run / ".hydra"] if where == "run" else [victim.here / "outputs"]
    with breaking.forbidden(*filter(Path.exists, folders)):
        trial.moment(4)
        trial.kept(before)
    trial.ends(main, 0, 1, 2)
    trial.kept(before)
    trial.resumed()
    trial.stored_once()
    trial.alone()
    trial.conclude()


ORDERS = {"ordered": "data=ordered", "any order": "data=writeback,noauto_da_alloc,commit=1"}
"""What ext4 promises by itself, and as little as it can promise."""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("words", [RUN, SWEEP], ids=["run", "sweep"])
def test_power_loss(trial: Trial, words: tuple[str, ...], order: str) -> None:
    machine = breaking.Machine(trial.place, ORDERS[order])
    trial.stack.callback(machine.close)
    victim = trial.lay(machine.mounted / "lab")
    main = victim.start(*words)
    if trial.chance.random() < 0.9:
        trial.begun(main)
    trial.moment(6 if words is SWEEP else 3)
    # what is seen now may be a moment old: it is on the disk
    before = trial.checkpoints()
    trial.moment(0.3)
    machine.cut(victim)
    trial.ends(main, 0, -signal.SIGKILL, 1, 2)
    trial.kept(before)
    trial.check(victim.call("runs") == 0, "dlrun runs")
    if (words is SWEEP and not victim.sweeps) or (words is RUN and not victim.runs):
        trial.check(victim.call(*words) == 0, "the same command again")
    trial.resumed(words, jobs=words is SWEEP)
    trial.stored_once()
    trial.alone()
    trial.conclude()
