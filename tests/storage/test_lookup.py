"""Runs and sweeps are found, and are ordered by when they began, whatever the clock on the wall said there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.commands.runs.query import Query, select
from dlrun.errors import UserError
from dlrun.storage import summary as summaries
from dlrun.storage.lookup import all_runs, all_sweeps, locate
from dlrun.storage.results import results
from tests.conftest import Called
from tests.facts import refuses
from tests.made_sweeps import made_sweep


def begin(folder: Path, started: float | None, file: str) -> None:
    made = folder / file
    made.parent.mkdir(parents=True)
    made.mkdir() if file == ".hydra" else made.write_text("{}")
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "started": started}))


def test_runs_of_two_time_zones_are_in_the_order_of_their_beginnings(here: Path) -> None:
    # Tokyo is 17 hours before Los Angeles
    begin(here / "outputs/runs/2026-03-02/090000-tokyo-bbbbbbbb", 1772409600.0, ".hydra")
    begin(here / "outputs/runs/2026-03-01/160001-angeles-cccccccc", 1772409601.0, ".hydra")
    assert [run.id for run in all_runs()] == ["bbbbbbbb", "cccccccc"]


def test_sweeps_of_two_time_zones_are_in_the_order_of_their_beginnings(here: Path) -> None:
    begin(here / "outputs/sweeps/2026-03-02/090000-tokyo-bbbbbbbb", 1772409600.0, "manifest.json")
    begin(here / "outputs/sweeps/2026-03-01/160001-angeles-cccccccc", 1772409601.0, "manifest.json")
    assert [sweep.id for sweep in all_sweeps()] == ["bbbbbbbb", "cccccccc"]


def test_a_run_whose_summary_says_no_time_is_ordered_by_its_name(here: Path) -> None:
    for name in ("2026-03-02/090000-b-bbbbbbbb", "2026-03-01/160001-a-cccccccc", "2026-03-01/150001-a-dddddddd"):
        begin(here / "outputs/runs" / name, None, ".hydra")
    assert [run.id for run in all_runs()] == ["dddddddd", "cccccccc", "bbbbbbbb"]


def test_a_sweep_in_a_run_s_place_is_told_with_a_job_to_type(here: Path, call: Callable[..., Called]) -> None:
    path = here / "outputs/sweeps/2026-03-01/160001-made-cccccccc"
    sweep = made_sweep(path, {"optimizer.lr": [1, 2], "seed": [0, 1]}, lambda values: {"val/error": values["seed"]})
    for reference in ("ccc", str(path)):
        with pytest.raises(UserError, match=r"is a sweep; name one of its runs, for example `cccccccc/0`\.$"):
            locate(reference)
    with sweep.edit_summary() as summary:
        summary.selected = {"group": "g", "jobs": [2, 3]}
    with pytest.raises(UserError, match="`cccccccc/2`, which is selected"):
        locate("ccc")
    begin(here / "outputs/runs/2026-03-02/090000-other-ccdddddd", None, ".hydra")
    with pytest.raises(UserError, match="fits 5 runs"):
        locate("cc")
    refuses(call("report", "ccd"), "`ccd` is a run", "dlrun ui ccdddddd")


def test_each_summary_is_read_once_for_a_list_and_for_results(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "outputs/sweeps/2026-03-02/090000-made-aaaaaaaa"
    sweep = made_sweep(folder, {"seed": [0, 1, 2]}, lambda _: {"val/error": 0.5})
    for n in range(3):
        (folder / str(n) / ".hydra").mkdir(exist_ok=True)
    found: list[str] = []
    read = summaries.read
    monkeypatch.setattr(summaries, "read", lambda place, kind: found.append(place.name) or read(place, kind))
    assert len(select({}, Query())) == 3
    assert sorted(found) == ["0", "1", "2"]
    found.clear()
    assert len(results(sweep)) == 3
    assert sorted(found) == ["0", "1", "2"]
