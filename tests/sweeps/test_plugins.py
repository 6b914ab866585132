"""Sweepers and launchers are recognised by their methods; a sweeper with a list of jobs is one class and one yaml."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import ConfigError
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import results
from dlrun.sweeps.plugins import ListSweeper, lists_jobs, makes_job_runner
from tests.facts import says

Call = Callable[..., Any]

QUICK = ("model=linear", "trainer.steps=2", "tracking.enabled=false", "trainer.figures=false", "trainer.threads=1")
ROWS = ("-m", "hydra/sweeper=rows", "hydra.sweeper.file=jobs.csv", "hydra.launcher.slots=1", *QUICK)


class RowSweeper(ListSweeper):
    """A job for each row of a CSV file, whose header has the keys."""

    def __init__(self, file: str) -> None:
        self.file = file

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        with Path(self.file).open(newline="") as file:
            rows = [[f"{key}={value}" for key, value in row.items()] for row in csv.DictReader(file)]
        return [[*given, *row] for given in self.combinations(arguments) for row in rows]


@pytest.fixture
def rows(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the sweeper `rows`, which is installed."""
    monkeypatch.setattr(RowSweeper, "__module__", "hydra_plugins.rows")
    module = ModuleType("hydra_plugins.rows")
    monkeypatch.setattr(module, "RowSweeper", RowSweeper, raising=False)
    monkeypatch.setitem(sys.modules, "hydra_plugins.rows", module)
    plugins = Plugins.instance()
    for kind in (Plugin, Sweeper):
        monkeypatch.setitem(plugins.plugin_type_to_subclass_list, kind, [*plugins.discover(kind), RowSweeper])
    monkeypatch.setitem(plugins.class_name_to_class, "hydra_plugins.rows.RowSweeper", RowSweeper)
    (here / "conf/hydra/sweeper").mkdir(parents=True)
    (here / "conf/hydra/sweeper/rows.yaml").write_text(
        "_target_: hydra_plugins.rows.RowSweeper\nfile: ???\n", encoding="utf-8"
    )
    (here / "jobs.csv").write_text("optimizer.lr,seed\n0.1,0\n0.3,1\n", encoding="utf-8")
    return here / "jobs.csv"


def test_a_sweeper_with_a_list_is_checked_and_run(call: Call, rows: Path) -> None:
    checked = call("check", *ROWS)
    assert checked.code == 0, checked.err
    says(checked.out, "optimizer.lr=0.3 seed=1")
    done = call("train", *ROWS)
    assert done.code == 0, done.err
    (sweep,) = all_sweeps()
    assert [result.job.overrides for result in results(sweep)] == [
        ("optimizer.lr=0.1", "seed=0"),
        ("optimizer.lr=0.3", "seed=1"),
    ]

    # the same list is the same sweep, a longer one another, which reuses the runs
    assert call("train", *ROWS).code == 0
    assert all_sweeps() == [sweep]
    rows.write_text(rows.read_text() + "1.0,2\n")
    assert call("train", *ROWS).code == 0
    (other,) = (each for each in all_sweeps() if each != sweep)
    assert [result.reused for result in results(other)] == [True, True, False]


def section(target: str) -> DictConfig:
    return OmegaConf.create({"_target_": target})


def test_plugins_are_recognised_by_their_methods() -> None:
    for name in ("local.LocalLauncher", "batched.BatchedLauncher"):
        assert makes_job_runner(section(f"hydra_plugins.dlrun_launcher.{name}"))
    basic = "hydra._internal.core_plugins.basic"
    assert makes_job_runner(section(f"{basic}_launcher.BasicLauncher")) is None
    assert lists_jobs(section("hydra_plugins.dlrun_sweeper.grid.GridSweeper"))
    for other in ("hydra_plugins.dlrun_search.optuna.OptunaSweeper", f"{basic}_sweeper.BasicSweeper"):
        assert lists_jobs(section(other)) is None


def test_a_name_that_hydra_has_not_found_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra_plugins\.rows\.Missing"):
        lists_jobs(section("hydra_plugins.rows.Missing"))


def test_a_launcher_of_hydra_is_told_to_have_no_sweep(call: Call) -> None:
    done = call("train", "-m", "hydra/launcher=basic", "seed=0", "trainer.fast=true", "tracking.enabled=false")
    assert done.code == 0, done.err
    says(done.err, "hydra/launcher=basic", "no selection", "hydra/launcher=local")
    assert not all_sweeps()
