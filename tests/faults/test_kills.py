"""SIGINT, SIGTERM and SIGKILL of each process of a run, of a sweep, and of a run of two processes; of all at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import pytest

from dlrun.storage.summary import FolderSummary, read
from tests.faults import breaking
from tests.faults.judging import UPLOADER, Trial
from tests.faults.victims import RUN, SWEEP, TWO

EXITS = {
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGKILL: (-signal.SIGKILL,),
}
signals = pytest.mark.parametrize("number", EXITS, ids=lambda number: number.name)


def kill(trial: Trial, words: Sequence[str], victim: str, number: signal.Signals, *, lasts: float) -> None:
    """Signal `victim`, a role or `all`, at a random moment; the rest is in order then, and after a resumption."""
    # the servers of the tests are no part of it: what takes processes of its own is imported in a server of its own
    main = trial.victim.start(*words, server="ranks" if "trainer.devices=2" in words else "dlrun")
    if trial.chance.random() < 0.8:
        trial.begun(main)
    trial.moment(lasts)
    roles = trial.victim.roles(main)
    struck = [each for role in roles if victim in (role, "all") for each in roles[role]]
    if victim in ("job", "server"):
        struck = struck[:1]
    before = trial.checkpoints()
    since = time.monotonic()
    breaking.send(number, struck)
    # a run that was not struck, or that was at its end, ends as it does
    codes = EXITS[number] if victim in ("main", "all") else (*EXITS[number], 1)
    trial.ends(main, 0, *codes)
    # what was not struck goes on: its end counts
    since = since if victim in ("main", "all") else time.monotonic()
    if victim == "uploader" and struck:
        assert main.returncode == 0
    trial.alone(but=UPLOADER)
    trial.true_in_time(since)
    trial.alone()
    trial.kept(before)
    trial.resumed(words, jobs=words is SWEEP)
    trial.stored_once()
    for run in trial.victim.jobs:
        assert read(run.path, FolderSummary).status == "finished"
    trial.conclude()


@signals
@pytest.mark.parametrize("victim", ["main", "uploader", "all"])
def test_run(trial: Trial, victim: str, number: signal.Signals) -> None:
    kill(trial, RUN, victim, number, lasts=1.5)


@signals
@pytest.mark.parametrize("victim", ["main", "server", "job", "uploader", "all"])
def test_sweep(trial: Trial, victim: str, number: signal.Signals) -> None:
    kill(trial, SWEEP, victim, number, lasts=3)


@signals
@pytest.mark.parametrize("victim", ["main", "rank 0", "rank 1", "uploader", "all"])
def test_run_of_two_processes(trial: Trial, victim: str, number: signal.Signals) -> None:
    kill(trial, TWO, victim, number, lasts=3)
