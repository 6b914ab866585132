"""Files and outputs are JSON for every program, with NaN and infinity in them, and are read back as they were."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dlrun.cli import main
from dlrun.storage import manifest
from dlrun.storage.jobs.job import Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

ODD = {"val/a": math.inf, "val/b": -math.inf, "val/c": 0.5}


def strict(text: str) -> Any:
    """JSON as other languages read it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def run_with(folder: Path, text: str) -> RunDir:
    (folder / ".hydra").mkdir(parents=True)
    (folder / "summary.json").write_text(text)
    return RunDir(folder)


def test_a_summary_has_each_number_as_it_was(tmp_path: Path) -> None:
    run = run_with(tmp_path, "{}")
    with run.edit_summary() as summary:
        # a text that reads like a number stays a text
        summary.status, summary.metrics, summary.name = "finished", ODD | {"val/d": math.nan}, "nan"
    assert strict((tmp_path / "summary.json").read_text())["metrics"]["val/a"] == "inf"
    read = run.summary()
    assert math.isnan(read.metrics["val/d"])
    assert ODD.items() <= read.metrics.items()
    assert read.name == "nan"


def test_the_literals_of_an_older_file_are_read(tmp_path: Path) -> None:
    read = run_with(tmp_path, '{"metrics": {"val/a": NaN, "val/b": -Infinity}}').summary()
    assert math.isnan(read.metrics["val/a"])
    assert read.metrics["val/b"] == -math.inf


def test_another_text_in_place_of_a_number_is_damage(tmp_path: Path) -> None:
    summary = Summary({"metrics": {"val/a": "NaNa"}})
    summary.read_numbers()
    assert summary.misfit()


def test_numbers_inside_of_a_sweeps_selection() -> None:
    chosen = {"mean": "nan", "label": "nan", "earlier": [{"mean": "inf"}]}
    summary = SweepSummary({"selected": chosen, "strata": [{"selected": chosen}]})
    summary.read_numbers()
    assert summary.misfit() is None
    for found in (summary.selected, summary.strata[0].get("selected")):
        assert found
        assert math.isnan(found["mean"] or 0.0)
        assert (found["label"], found["earlier"][0]["mean"]) == ("nan", math.inf)


def test_a_manifest_has_its_configurations(tmp_path: Path) -> None:
    config = {"seed": 0, "metrics": {"odd": {"value": math.inf, "text": "inf"}}}
    written = Manifest("a", "h", {}, "", 0.0, "val/loss", False, "final", jobs=(Job(0, (), config, "i", "g"),))
    sweep = SweepDir(tmp_path)
    written.write(sweep)
    strict(sweep.manifest.read_text())
    assert manifest.read(sweep) == written


def test_the_list_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path))
    for place, value in enumerate(("2.0", '"nan"', "1.0", "NaN", '"-inf"')):
        text = f'{{"status": "finished", "metrics": {{"val/loss": {value}}}, "selected_by": "val/loss"}}'
        run_with(tmp_path / "runs" / "2026-01-02" / f"00000{place}-a-{place}", text)
    for options, expected in (([], [-math.inf, 1.0, 2.0]), (["--descending"], [2.0, 1.0, -math.inf])):
        assert main(["runs", "--json", "--sort", "val/loss", *options]) == 0
        values = [float(row["metrics"]["val/loss"]) for row in strict(capsys.readouterr().out)]
        # those that are no number last, in either order
        assert values[:3] == expected
        assert all(map(math.isnan, values[3:]))
    # by the metric that selected the weights of all
    assert main(["runs", "--json", "--sort", "best"]) == 0
    assert [row["id"] for row in strict(capsys.readouterr().out)] == ["4", "2", "0", "1", "3"]


def test_no_run_is_an_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path))
    for options in (["--sort", "best"], ["--where", "val/loss<1"], ["--last", "2"], ["--sweeps"]):
        assert main(["runs", "--json", *options]) == 0
        assert strict(capsys.readouterr().out) == []
