"""The list of runs."""

from __future__ import annotations

import json
from pathlib import Path

from dlrun.storage.journal import open_journal
from dlrun.storage.rundir import RunDir
from tests.facts import says


def test_a_killed_run_shows_how_far_it_came(here: Path, call) -> None:
    run = RunDir(here / "outputs/runs/2026-01-01/120000-digits-mlp-bcdfghjk")
    (run.path / ".hydra").mkdir(parents=True)
    with run.edit_summary() as summary:
        summary.status, summary.horizon = "running", 1000
    says(call("runs").out, "killed", "0/1000")
    with open_journal(run.journal) as journal:
        for step in range(1, 251):
            journal.metrics(step, step / 100, {"train/loss": 0.5, "train/what_makes_a_line_long": 0.25} | LONG)
        journal.event("text", name="sample", text="abc", step=250)
    says(call("runs").out, "250/1000")
    assert json.loads(call("runs", "--json").out)[0]["steps"] == 250


LONG = {f"train/metric_{i}": 0.5 for i in range(20)}
