"""Folders of runs and sweeps, written by hand: no training is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Journal
from dlrun.storage.manifest import read
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from tests.summaries import summarise

MakeRun = Callable[..., RunDir]
MakeSweep = Callable[..., SweepDir]
CONFIG = """
name: mnist
seed: 0
model: {_target_: torch.nn.Linear, hidden: [3, 4], bias: true}
optimizer: {lr: 0.1, decay: null}
tracking: {experiment: study, tags: {who: ada}}
"""
METRICS = {"train/loss": 0.5, "val/loss": 0.6, "val/error": 0.2, "test/error": 0.25}


def log(run: RunDir, steps: range, *, end: str | None = None) -> None:
    """Append points as training does, and perhaps the end."""
    journal = Journal(run.journal)
    if not steps.start:
        journal.event("start", resumed_from=None, pid=0)
    for step in steps:
        journal.metrics(step, step / 10, {"train/loss": 1 / (step + 1), "val/loss": 2 / (step + 1)})
    if end:
        journal.event("end", status=end)
        summarise(run, status=end, metrics=METRICS, best_step=5, steps=steps.stop)
    journal.close()


def job(n: int, *, rate: float, seed: int) -> Job:
    config = {"name": "digits", "seed": seed, "optimizer": {"lr": rate}, "tracking": {"experiment": "study"}}
    return Job(n, (f"optimizer.lr={rate:g}", f"seed={seed}"), config, f"{n:016x}", f"{rate:g}")


def train(sweep: SweepDir, n: int, *, steps: int = 3, status: str = "finished", **summary: Any) -> RunDir:
    """Write the folder of a job, as training does."""
    run, what = sweep.job(n), read(sweep).jobs[n]
    (run.path / ".hydra").mkdir(parents=True, exist_ok=True)
    run.config.write_text(json.dumps(what.config))
    summarise(run, status="running", seed=what.seed, uploaded=False, test_reads=0)
    journal = Journal(run.journal)
    for step in range(steps):
        journal.metrics(step, step / 10, {"train/loss": value(n, step), "val/error": 2 * value(n, step)})
    journal.event("end", status=status)
    journal.close()
    summarise(run, status=status, metrics={"val/error": n / 10}, best_step=1, steps=steps, **summary)
    return run


def value(n: int, step: int) -> float:
    return n + 1 / (step + 1)
