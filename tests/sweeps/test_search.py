"""The search: its space, its samplers, the course of its trials, and that none is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, cast

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from dlrun.cli import main
from dlrun.config import compose
from dlrun.errors import ConfigError, DamagedFile, UserError
from dlrun.storage import manifest
from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Journal
from dlrun.storage.manifest import Manifest
from dlrun.storage.results import Result, results
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.search_history import SearchHistory, history
from dlrun.sweeps.jobs.expand import Expansion
from dlrun.sweeps.search import bases, definition, settings, space
from dlrun.sweeps.search.bases import Bases
from dlrun.sweeps.search.curves import CurveReader
from dlrun.sweeps.search.definition import SearchDefinition
from dlrun.sweeps.search.search import Search
from dlrun.sweeps.search.settings import SearchSettings
from dlrun.sweeps.search.trials import Trials
from dlrun.sweeps.store import SweepStore
from tests.conftest import Called
from tests.facts import says
from tests.summaries import summarise

QUIET = ["tracking.enabled=false", "trainer.threads=1", "trainer.figures=false"]
SPACE = ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "model.width=range(16,129,16)", "optimizer=sgd,adam"]


@pytest.mark.parametrize(
    ("override", "values", "same_as"),
    [
        ("k=range(16,65,16)", (16, 32, 48, 64), "IntDistribution(high=64, log=False, low=16, step=16)"),
        ("k=range(3,0,-1)", (1, 2, 3), "IntDistribution(high=3, log=False, low=1, step=1)"),
        ("k=range(0.1,0.7,0.2)", (0.1, 0.3, 0.5), "FloatDistribution(high=0.5, log=False, low=0.1, step=0.2)"),
        ("k=tag(log,range(1,4))", (1, 2, 3), "IntDistribution(high=3, log=True, low=1, step=1)"),
        ("k=tag(log,interval(1e-3,1))", None, "FloatDistribution(high=1.0, log=True, low=0.001, step=None)"),
        ("k=interval(1,2)", None, "FloatDistribution(high=2.0, log=False, low=1.0, step=None)"),
        ("k=int(interval(1,3))", (1, 2, 3), "IntDistribution(high=3, log=False, low=1, step=1)"),
        ("k=tag(int,log,interval(1,3))", (1, 2, 3), "IntDistribution(high=3, log=True, low=1, step=1)"),
        ("k=a,null,[1,2]", ("a", "null", "[1,2]"), "CategoricalDistribution(choices=('a', 'null', '[1,2]'))"),
    ],
)
def test_a_dimension_is_what_hydra_says(override: str, values: tuple[Any, ...] | None, same_as: str) -> None:
    dimension = space.read([override, "fixed=1"]).dimensions["k"]
    assert repr(dimension.distribution()) == same_as
    if values is None or isinstance(values[0], str):
        assert dimension.values == values
    else:
        assert list(dimension.values or ()) == pytest.approx(values)


def test_the_space_is_read_back_as_it_was() -> None:
    spanned = space.read([*SPACE, "model.depth=int(interval(1,3))", "seed=range(2)", "+experiment=digits"])
    assert space.from_dict(json.loads(json.dumps(spanned.to_dict()))) == spanned
    kinds = {dimension["kind"] for dimension in spanned.to_dict()["dimensions"].values()}
    assert kinds == {"Choice", "Steps", "Interval"}  # the names in search.json
    assert spanned.fixed == ("+experiment=digits",)
    params = {"optimizer.lr": 0.0123456789, "model.width": 32, "optimizer": "sgd", "model.depth": 2}
    own = ("optimizer.lr=0.0123457", "model.width=32", "optimizer=sgd", "model.depth=2")
    assert spanned.overrides(params) == [(*own, "seed=0"), (*own, "seed=1")]


def test_folds_and_splits_are_repetitions_of_a_trial_and_not_searched() -> None:
    spanned = space.read(["model.width=16,32", "dataset.fold=range(3)", "seed=1,2", "dataset.folds=3"])
    assert [*spanned.dimensions] == ["model.width"]
    assert space.from_dict(json.loads(json.dumps(spanned.to_dict()))) == spanned
    jobs = spanned.overrides({"model.width": "16"})
    assert jobs == [("model.width=16", f"seed={s}", f"dataset.fold={k}") for s in (1, 2) for k in range(3)]
    splits = space.read(["model.width=16,32", "dataset.split_seed=0,1"]).overrides({"model.width": "32"})
    assert splits == [("model.width=32", "dataset.split_seed=0"), ("model.width=32", "dataset.split_seed=1")]
    with pytest.raises(ConfigError, match=r"dataset\.fold is not searched"):
        space.read(["model.width=16,32", "dataset.fold=interval(0,3)"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("space", 1),
        ("space", {"dimensions": {"a": {"kind": "Choice", "values": [1]}}, "seeds": [], "fixed": []}),
        ("space", {"dimensions": {"a": {"kind": "Choice", "values": []}}, "seeds": [], "fixed": []}),
        ("space", {"dimensions": {"a": {"kind": "Interval", "low": 2, "high": 1}}, "seeds": [], "fixed": []}),
        ("space", {"dimensions": {"a": {"kind": ["x"]}}, "seeds": [], "fixed": []}),
        ("settings", [1]),
        ("settings", {"sampler": "x"}),
        ("settings", {"n_trials": "3"}),
        ("bases", {"keys": [], "configs": [[[], 5]]}),
        ("bases", {"keys": [], "configs": 5}),
    ],
)
def test_an_odd_value_of_the_kept_search_is_named(tmp_path: Path, key: str, value: Any) -> None:
    sweep = SweepDir(tmp_path)
    SearchDefinition(space.read(["a=1,2"]), SearchSettings(), Bases((), {(): {"a": 1}})).write(sweep)
    assert definition.read(sweep).total == 20
    content = json.loads((tmp_path / definition.FILE).read_text())
    (tmp_path / definition.FILE).write_text(json.dumps(content | {key: value}))
    with pytest.raises(DamagedFile, match=r"search\.json"):
        definition.read(sweep)


def test_of_a_key_that_is_given_twice_the_last_counts() -> None:
    spanned = space.read(["optimizer.lr=interval(0,1)", "model.width=1,2", "optimizer.lr=0.1"])
    assert [*spanned.dimensions] == ["model.width"] and spanned.fixed == ("optimizer.lr=0.1",)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seed=range(3)"], "nothing to search"),
        (["k=interval(2,1)"], "ends before it begins"),
        (["k=tag(log,interval(0,1))"], "above zero"),
        (["k=tag(log,range(1,9,2))"], "step 1"),
        (["k=range(3,3)"], "no value at all"),
        (["k=1,2", "seed=interval(0,9)"], "not searched"),
        (["k=interval(1"], "cannot be read"),
    ],
)
def test_what_cannot_be_searched_is_said(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        space.read(overrides)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sampler": "tpee"}, "Did you mean `tpe`"),
        ({"pruner": "mean"}, "median, hyperband, none"),
        ({"n_trials": 0}, "n_trials=0"),
        ({"seed": "x"}, "whole number"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings.read(given)


def test_a_grid_over_a_continuum_and_cmaes_over_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr has no end of values"):
        settings.check(SearchSettings(sampler="grid"), space.read(SPACE))
    with pytest.raises(ConfigError, match="two or more numbers"):
        settings.check(
            SearchSettings(sampler="cmaes"), space.read(["optimizer=sgd,adam", "optimizer.lr=interval(0,1)"])
        )


@pytest.mark.parametrize(("sampler", "package"), [("tpe", "optuna"), ("cmaes", "cmaes")])
def test_a_missing_package_is_said_with_what_to_type(
    sampler: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(UserError, match=rf"needs the package {package}.*\n?.*pip install 'dlrun\[search\]'"):
        settings.check(SearchSettings(sampler=sampler), space.read(SPACE))


def stored(folder: Path) -> list[FrozenTrial]:
    """The trials as Optuna itself reads them from the file."""
    storage = JournalStorage(JournalFileBackend(str(folder / definition.TRIALS)))
    return optuna.load_study(study_name="search", storage=storage).trials


def trials(folder: Path, spanned: space.Space, **chosen: Any) -> Trials:
    return Trials(folder / definition.TRIALS, spanned, SearchSettings(**chosen), higher_is_better=False)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_a_sampler_stays_in_the_space_and_is_repeatable_though_interrupted(sampler: str, tmp_path: Path) -> None:
    spanned = space.read([*SPACE, "model.depth=int(interval(1,3))"])

    def drawn(folder: Path, *, again: bool) -> list[dict[str, Any]]:
        folder.mkdir()
        kept = trials(folder, spanned, sampler=sampler, startup=2)
        for number in range(6):
            kept = trials(folder, spanned, sampler=sampler, startup=2) if again else kept
            trial = kept.ask()
            assert 1e-4 <= trial.params["optimizer.lr"] <= 1e-1 and trial.params["model.width"] in range(16, 129, 16)
            kept.tell(trial, float(number))
        return [trial.params for trial in stored(folder)]

    found = drawn(tmp_path / "a", again=False)
    assert found == drawn(tmp_path / "b", again=True)
    assert len({str(params) for params in found}) == 6


def test_a_grid_is_visited_once_each_also_if_it_is_made_longer(tmp_path: Path) -> None:
    spanned = space.read(["x=range(0,0.5,0.1)", "y=a,b"])
    assert SearchSettings(sampler="grid", n_trials=4).trials(spanned) == 4
    assert (
        SearchSettings(sampler="grid").trials(spanned)
        == SearchSettings(sampler="grid", n_trials=99).trials(spanned)
        == 10
    )
    for part in (range(4), range(4, 10)):
        kept = trials(tmp_path, spanned, sampler="grid")
        for _ in part:
            kept.tell(kept.ask(), 0.0)
    visited = sorted((trial.params["x"], trial.params["y"]) for trial in stored(tmp_path))
    assert visited == [(x, y) for x in (0.0, 0.1, 0.2, 0.3, 0.4) for y in "ab"]


def test_what_was_asked_and_not_told_is_open_again_also_behind_a_torn_line(tmp_path: Path) -> None:
    spanned = space.read(SPACE)
    kept = trials(tmp_path, spanned)
    kept.tell(kept.ask(), 1.0)
    asked = kept.ask()
    assert not kept.report(asked, [0.5, 0.4])
    with (tmp_path / definition.TRIALS).open("ab") as file:
        file.write(b'{"op_code":4,"worker')  # as a crash leaves it
    kept = trials(tmp_path, spanned)
    (again,) = kept.open()
    assert again.params == asked.params and len(kept) == 2
    kept.report(again, [0.5, 0.4, 0.3])
    kept.tell(again, 0.3)
    assert [trial.state.name for trial in stored(tmp_path)] == ["COMPLETE", "COMPLETE"]
    assert stored(tmp_path)[1].intermediate_values == {1: 0.5, 2: 0.4, 3: 0.3}


def test_the_journal_is_followed_also_behind_a_resumption(tmp_path: Path) -> None:
    run = SweepDir(tmp_path).job(0)
    run.path.mkdir()
    watch = CurveReader("val/error")
    assert watch.values(run) == []
    for step, value in ((10, 0.5), (20, 0.4)):
        append(run.path, step, {"val/error": value, "val/loss": 1.0})
    assert watch.values(run) == [0.5, 0.4]
    append(run.path, 25, {"train/loss": 0.1})
    append(run.path, 20, {"val/error": 0.3})
    append(run.path, 30, {"val/error": float("inf")})
    assert watch.values(run) == [0.5, 0.3, float("inf")]


def append(folder: Path, step: int, values: dict[str, float]) -> None:
    journal = Journal(folder / "journal.jsonl")
    journal.metrics(step, step / 10, values)
    journal.close()


class Killed(BaseException):
    """A SIGKILL of the process that runs the search."""


Curve = Callable[[dict[str, str]], list[float] | None]


class FakeRunner:
    """A sweep runner with made-up jobs: `slots` at once, one evaluation a tick along `curve` (None: the job fails)."""

    def __init__(self, folder: Path, curve: Curve, *, slots: int = 1, dies_at: int | None = None) -> None:
        sweep = SweepDir(folder)
        folder.mkdir(exist_ok=True)
        if not sweep.manifest.exists():
            Manifest("made", "", {}, "", 0.0, "val/error", higher_is_better=False, test="final").write(sweep)
        self.store = SweepStore(sweep, manifest.read(sweep))
        self._curve, self._slots, self._dies_at = curve, slots, dies_at
        self.started: list[int] = []
        self._running: dict[int, Iterator[float]] = {}
        self._asked: set[int] = set()

    def stop(self, n: int) -> None:
        self._asked.add(n)

    def due(self) -> list[Job]:
        return self.store.due(retry_failed=False)

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        count: int,
        on_result: Callable[[Result], bool],
        on_tick: Callable[[], None],
    ) -> bool:
        queue = iter(jobs)
        more = True
        with ExitStack() as stack:
            while more or self._running:
                while more and len(self._running) < self._slots:
                    job = next(queue, "over")
                    more = job != "over"
                    if not isinstance(job, Job):
                        break
                    self._start(job, stack)
                for n in [*self._running]:
                    self._go_on(n, on_result)
                on_tick()
        return True

    def _start(self, job: Job, stack: ExitStack) -> None:
        if len(self.started) == self._dies_at:
            raise Killed
        self.started.append(job.n)
        folder = self.store.sweep.job(job.n)
        folder.path.mkdir(exist_ok=True)
        stack.enter_context(folder.hold())
        summarise(folder, status="running")
        self._running[job.n] = iter(self._curve(job.config) or [])

    def _go_on(self, n: int, told: Callable[[Result], bool]) -> None:
        folder = self.store.sweep.job(n)
        (job,) = (job for job in self.store.manifest.jobs if job.n == n)
        curve = self._curve(job.config)
        step = len(CurveReader("val/error").values(folder))
        if curve is None:
            summarise(folder, status="failed", metrics={})
        elif n in self._asked:
            summarise(folder, status="pruned", metrics={"val/error": curve[step - 1]})
        elif step == len(curve):
            summarise(folder, status="finished", metrics={"val/error": curve[-1]})
        else:
            append(folder.path, step + 1, {"val/error": curve[step]})
            return
        del self._running[n]
        assert told(self.store.result(job))


def search(folder: Path, overrides: list[str], curve: Curve, total: int, **chosen: Any) -> FakeRunner:
    """Search with made-up jobs, also in the folder of an earlier search."""
    spanned = space.read(overrides)
    made = {name: chosen.pop(name) for name in ("slots", "dies_at") if name in chosen}
    runner = FakeRunner(folder, curve, **made)

    def make(own: tuple[str, ...]) -> Job:
        values = dict(override.split("=") for override in own)
        group = " ".join(override for override in own if not override.startswith("seed="))
        return Job(len(runner.store.manifest.jobs), own, {"seed": 0, **values}, identity="", group=group)

    kept = trials(folder, spanned, **chosen)
    Search(cast("Any", runner), kept, spanned, total=total, make_job=make).run()
    return runner


def test_a_trial_is_told_the_mean_over_its_seeds(tmp_path: Path) -> None:
    def curve(job: dict[str, str]) -> list[float]:
        return [1.0, float(job["x"]) + float(job["seed"])]

    runner = search(tmp_path / "s", ["x=interval(0,1)", "seed=0,1,5"], curve, 3, sampler="random", slots=2)
    found = stored(tmp_path / "s")
    assert len(runner.store.manifest.jobs) == 9 and len(found) == 3 and len(runner.started) == 9
    for number, trial in enumerate(found):
        jobs = runner.store.manifest.jobs[3 * number : 3 * number + 3]
        xs = [float(job.config["x"]) for job in jobs]
        assert trial.value == pytest.approx(sum(xs) / 3 + 2) and xs[0] == pytest.approx(trial.params["x"], rel=1e-5)
        assert trial.intermediate_values == {1: 1.0, 2: pytest.approx(trial.value)}


def test_a_failed_trial_is_told_so_and_the_search_goes_on(tmp_path: Path) -> None:
    curve: Curve = lambda job: None if job["x"] == "2" else [float(job["x"])]  # noqa: E731
    search(tmp_path / "s", ["x=range(5)"], curve, 5, sampler="grid")
    states = {trial.params["x"]: trial.state.name for trial in stored(tmp_path / "s")}
    assert states == {0: "COMPLETE", 1: "COMPLETE", 2: "FAIL", 3: "COMPLETE", 4: "COMPLETE"}


def test_the_same_values_are_run_once(tmp_path: Path) -> None:
    runner = search(tmp_path / "s", ["x=a,b"], lambda job: [0.1, 0.2], 12, sampler="random", slots=2)
    assert sorted(runner.started) == [0, 1] and len(runner.store.manifest.jobs) == 2
    found = stored(tmp_path / "s")
    assert len(found) == 12 and all(trial.value == 0.2 for trial in found)


def test_a_trial_that_lags_behind_the_median_is_pruned(tmp_path: Path) -> None:
    def curve(job: dict[str, str]) -> list[float]:
        return [float(job["x"])] * 20

    runner = search(tmp_path / "s", ["x=range(8)"], curve, 8, sampler="grid", startup=3, warmup=2)
    finished: list[float] = []
    for trial in stored(tmp_path / "s"):
        x = trial.params["x"]
        lags = len(finished) >= 3 and x > median(finished)
        assert trial.state.name == ("PRUNED" if lags else "COMPLETE")
        assert len(trial.intermediate_values) == 20 if not lags else 2 <= len(trial.intermediate_values) < 20
        finished += [] if lags else [x]
    statuses = [runner.store.result(job).status for job in runner.store.manifest.jobs]
    assert 0 < statuses.count("pruned") < 8
    assert statuses.count("pruned") + statuses.count("finished") == 8


def test_without_a_pruner_none_is_pruned(tmp_path: Path) -> None:
    curve: Curve = lambda job: [float(job["x"])] * 9  # noqa: E731
    search(tmp_path / "s", ["x=range(8)"], curve, 8, sampler="grid", startup=0, warmup=0, pruner="none")
    assert {trial.state.name for trial in stored(tmp_path / "s")} == {"COMPLETE"}


def test_hyperband_prunes_too(tmp_path: Path) -> None:
    curve: Curve = lambda job: [float(job["x"])] * 9  # noqa: E731
    search(tmp_path / "s", ["x=range(24)"], curve, 24, sampler="grid", startup=0, pruner="hyperband")
    states = [trial.state.name for trial in stored(tmp_path / "s")]
    assert states.count("PRUNED") > 0 and states.count("PRUNED") + states.count("COMPLETE") == 24


def test_of_a_pruned_trial_no_further_seed_is_started(tmp_path: Path) -> None:
    def curve(job: dict[str, str]) -> list[float]:
        return [float(job["x"])] * 20

    runner = search(tmp_path / "s", ["x=range(6)", "seed=0,1"], curve, 6, sampler="grid", startup=2, slots=3)
    for trial in stored(tmp_path / "s"):
        mine = [job for job in runner.store.manifest.jobs if job.config["x"] == str(trial.params["x"])]
        statuses = [runner.store.result(job).status for job in mine]
        assert "missing" not in statuses and "running" not in statuses
        assert ("pruned" in statuses) == (trial.state.name == "PRUNED")
        assert len(mine) == 2 or trial.state.name == "PRUNED"


def test_a_job_whose_run_is_gone_is_run_again_and_its_trial_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve: Curve = lambda job: [float(job["x"])]  # noqa: E731
    first = search(tmp_path / "s", ["x=range(4)"], curve, 4, sampler="grid")
    before = [trial.value for trial in stored(tmp_path / "s")]
    shutil.rmtree(first.store.sweep.job(1).path)
    again = search(tmp_path / "s", ["x=range(4)"], curve, 4, sampler="grid")
    assert again.started == [1] and not capsys.readouterr().err
    assert all(again.store.result(job).status == "finished" for job in again.store.manifest.jobs)
    # before further trials, and with another result
    shutil.rmtree(first.store.sweep.job(2).path)
    other: Curve = lambda job: [float(job["x"]) + 9]  # noqa: E731
    again = search(tmp_path / "s", ["x=range(5)"], other, 4, sampler="grid")
    assert again.started == [2]
    says(capsys.readouterr().err, "trial 2", "val/error", "keeps the first")
    assert [trial.value for trial in stored(tmp_path / "s")] == before


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "cmaes"])
def test_a_search_that_is_killed_again_and_again_loses_no_trial_and_counts_none_twice(
    sampler: str, tmp_path: Path
) -> None:
    overrides = ["x=range(4)", "y=range(5)"]
    curve: Curve = lambda job: [1.0, float(job["x"]) + float(job["y"])]  # noqa: E731
    chosen: dict[str, Any] = {"sampler": sampler, "startup": 4, "pruner": "none", "slots": 2}
    deaths = 0
    while True:
        try:
            runner = search(tmp_path / "s", overrides, curve, 12, dies_at=3, **chosen)
            break
        except Killed:
            deaths += 1
    assert 2 <= deaths <= 12
    found = stored(tmp_path / "s")
    assert [trial.number for trial in found] == [*range(12)]
    assert all(trial.value == trial.params["x"] + trial.params["y"] for trial in found)
    assert all(runner.store.result(job).status == "finished" for job in runner.store.manifest.jobs)
    points = {(trial.params["x"], trial.params["y"]) for trial in found}
    assert len(runner.store.manifest.jobs) == len(points) == len({job.overrides for job in runner.store.manifest.jobs})
    # it is complete: nothing more is started
    assert search(tmp_path / "s", overrides, curve, 12, **chosen).started == []
    assert len(search(tmp_path / "s", overrides, curve, 14, **chosen).store.manifest.jobs) <= len(points) + 2
    assert len(stored(tmp_path / "s")) == 14


def test_the_kept_configurations_give_what_hydra_composes(here: Path) -> None:
    given = ["+experiment=digits", *SPACE, "seed=0,1", "dataset.validation_size=150"]
    with compose.open_hydra() as hydra:
        loader = hydra.config_loader
        master = compose.load(hydra, compose.PRIMARY, [*given, "hydra.mode=MULTIRUN"])
        spanned = space.read(given, loader)
        expansion = Expansion(loader, master)
        _, kept, _ = bases.compose(spanned, expansion, loader)
        assert kept.keys == ("optimizer",) and set(kept.configs) == {("sgd",), ("adam",)}
        kept = bases.from_dict(json.loads(json.dumps(kept.to_dict())))
        for overrides in definition.SearchDefinition(spanned, SearchSettings(), kept).probes():
            assert kept.config(overrides) == expansion.config([*spanned.fixed, *overrides], 0)


def test_a_search_begins_with_a_look_at_each_choice_and_both_ends() -> None:
    spanned = space.read(["model=a,b,c", "optimizer=x,y", "lr=interval(1,2)", "width=range(1,9)"])
    kept = bases.Bases(("model", "optimizer"), {})
    probes = definition.SearchDefinition(spanned, SearchSettings(), kept).probes()
    seen = {override for probe in probes for override in probe}
    assert seen >= {"model=a", "model=b", "model=c", "optimizer=x", "optimizer=y"}
    assert seen >= {"lr=1", "lr=2", "width=1", "width=8"} and len(probes) == 3


def test_the_history_has_a_point_a_trial_and_the_best_so_far(tmp_path: Path) -> None:
    curve: Curve = lambda job: None if job["x"] == "2" else [(float(job["x"]) - 3) ** 2 + float(job["seed"])]  # noqa: E731
    runner = search(tmp_path / "s", ["x=range(6)", "seed=0,1"], curve, 6, sampler="grid", pruner="none")
    finished = [result for result in results(runner.store.sweep) if result.status == "finished"]
    points = history(finished, "val/error")
    told = [trial.value for trial in stored(tmp_path / "s") if trial.state.name == "COMPLETE"]
    assert [value for _, value in points] == told and len(told) == 5
    # the failed trial has one job: its other seed was not started
    assert len(runner.store.manifest.jobs) == 11 and {n for n, _ in points} < {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
    (finding,) = SearchHistory("val/error").figures(finished)
    line = finding.figure.axes[0].get_lines()[1]
    assert list(line.get_ydata()) == [min(value for _, value in points[: i + 1]) for i in range(len(points))]
    assert not [*SearchHistory("val/error").figures(finished[:2])] and not SearchHistory("val/error").claims(finished)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["evaluation.monitor=test/error", "optimizer.lr=interval(0.1,1)"], "test/error"),
        (["hydra.sweeper.sampler=grid", "optimizer.lr=interval(0.1,1)"], "no end of values"),
        (["optimizer.lrr=interval(0.1,1)"], "optimizer.lr"),
        (["model.width=abc,def"], "model.width"),
        (["dataset.validation_size=0", "optimizer.lr=interval(0.1,1)"], "validation"),
    ],
)
def test_a_search_that_cannot_be_leaves_nothing_behind(
    overrides: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", "hydra/sweeper=search", "+experiment=digits", "tracking.enabled=false", *overrides]
    assert main(command) == 2
    says(capsys.readouterr().err, told)
    assert not [*here.glob("outputs/sweeps/*/*")]


def test_a_search_that_cannot_begin_removes_nothing_of_a_given_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    (here / "given").mkdir()
    (here / "given" / "mine.txt").write_text("mine")
    monkeypatch.setattr("dlrun.sweeps.search.run.create", full)
    command = ["train", "-m", "hydra/sweeper=optuna", "+experiment=digits", *QUIET, "hydra.sweep.dir=given"]
    assert main([*command, "optimizer.lr=interval(0.1,1)"]) == 2
    assert [path.name for path in here.glob("given/*")] == ["mine.txt"]


def test_a_search_prunes_what_lags_behind_and_tests_what_it_chose(
    dlrun: Callable[..., Called], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", "hydra/sweeper=search", "hydra.launcher.slots=1", "+experiment=digits", *QUIET]
    command += [f"hydra.sweeper.{setting}" for setting in ("sampler=grid", "startup=1", "seed=0")]
    command += ["optimizer=sgd", "optimizer.lr=0.1,0.00001", "trainer.epochs=2000", "trainer.patience=5"]
    done = dlrun(*command)
    assert done.code == 0, done.err
    (sweep,) = map(SweepDir, here.glob("outputs/sweeps/*/*"))
    found = {result.swept["optimizer.lr"]: result for result in results(sweep)}
    assert {lr: result.status for lr, result in found.items()} == {"0.1": "finished", "1e-05": "pruned"}
    assert {lr: result.summary.test_reads for lr, result in found.items()} == {"0.1": 1, "1e-05": 0}
    assert sweep.summary().search == {"sampler": "grid", "trials": 2, "total": 2, "complete": 1, "pruned": 1}
    # from the folder, and by the same command with more trials than the grid has points
    for continued in (["resume", sweep.id], [*command, "hydra.sweeper.n_trials=9"]):
        assert main(continued) == 0
        says(capsys.readouterr().out, "all 2 jobs have ended")
