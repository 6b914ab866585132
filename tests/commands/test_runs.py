"""The list of runs."""

from __future__ import annotations

import json
from pathlib import Path

from dlrun.commands.runs.rows import as_table
from dlrun.storage.journal import open_journal
from dlrun.storage.rundir import RunDir
from tests.facts import refuses, says


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


def test_the_metric_that_selected_a_run_is_a_column() -> None:
    row = {"id": "a", "status": "finished", "size": 1, "metrics": {"val/iou": 0.25}, "selected_by": "val/iou"}
    says(as_table([row, row | {"selected_by": None}], None), "val/iou", "0.25")


LONG = {f"train/metric_{i}": 0.5 for i in range(20)}


def test_the_cost_of_runs_is_drawn_among_published_models(call, here) -> None:
    (here / "book.txt").write_text("a line of a book\n" * 100)
    text = ["dataset=text", "dataset.path=book.txt", "dataset.context=8", "model=ngram", "optimizer=counting"]
    for words in (["seed=0"], ["seed=1"], [*text, "trainer.batch_size=null"]):
        assert call("train", "trainer.steps=1", "tracking.enabled=false", "trainer.figures=false", *words).code == 0
    done = call("runs", "--where", "status=finished", "--figure", "cost.svg")
    assert done.code == 0, done.err
    says(done.out, "cost.svg: 2 runs; 1 run without a count of operations left out")
    assert (here / "cost.svg").read_text().startswith("<?xml")
    refuses(call("runs", "--figure", "cost.jpeg"), "expected a file that ends with .png or .svg")
    refuses(call("runs", "--where", "seed=7", "--figure", "cost.png"), "nothing to draw")
