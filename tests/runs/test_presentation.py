"""What a person reads while a run trains."""

from __future__ import annotations

import pytest

from dlrun.engine.plan import Plan
from dlrun.runs.presentation import Progress


def test_a_line_has_the_metrics_of_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(steps=20, per_epoch=10, log_every=5, evaluate_every=10, checkpoint_every=None)
    progress = Progress(plan, 0, validated=True)
    progress.point(5, 0.5, {"train/loss": 0.5, "lr": 0.1})
    progress.point(10, 1.0, {"train/loss": 0.4, "lr": 0.1})
    progress.point(10, 1.0, {"val/loss": 0.6})
    progress.point(15, 1.5, {"train/loss": 0.3, "lr": 0.1})
    progress.point(20, 2.0, {"val/loss": 0.2})
    first, last = capsys.readouterr().out.splitlines()
    assert "step 10/20" in first
    assert "train/loss 0.4  val/loss 0.6" in first
    # the training loss of step 15 is not that of step 20
    assert last.endswith("val/loss 0.2")
    assert "train/loss" not in last


def test_a_line_has_no_rate_where_none_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(steps=20, per_epoch=10, log_every=20, evaluate_every=10, checkpoint_every=None)
    progress = Progress(plan, 0, validated=True)
    progress.point(10, 1.0, {"val/loss": 0.6})
    progress.point(20, 2.0, {"train/loss": 0.4, "lr": 0.1, "throughput/samples_per_second": 100.0})
    progress.point(20, 2.0, {"val/loss": 0.5})
    first, last = capsys.readouterr().out.splitlines()
    assert "samples/s" not in first
    assert "100 samples/s  train/loss 0.4  val/loss 0.5" in last
