"""Keys that only some choices have, and sweeps of several blocks: their jobs, their mistakes, their report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals

from dlrun.commands.train import multirun
from dlrun.config import compose, hydra_main
from dlrun.config.hydra_parser import split_blocks
from dlrun.errors import ConfigError, UserError
from dlrun.report import tables
from dlrun.report.figures import sweep_figures
from dlrun.report.overview import read_overview
from dlrun.report.runs_csv import runs_csv
from dlrun.storage.lookup import all_sweeps
from dlrun.sweeps.jobs import definition
from dlrun.sweeps.jobs.expand import Expansion
from dlrun.sweeps.search import bases, space
from dlrun.sweeps.search.settings import SearchSettings
from dlrun.sweeps.search.trials import Trials
from tests.conftest import Called
from tests.facts import says

QUIET = ["tracking.enabled=false", "trainer.threads=1", "trainer.figures=false", "trainer.fast=true"]


def listed(*overrides: str) -> tuple[list[str], list[str]]:
    """A sweep's jobs by their own overrides, and what is left out of some."""
    rest, blocks = split_blocks(overrides)
    with compose.open_hydra() as hydra:
        setup_globals()
        master = compose.load(hydra, "dlrun", [*rest, *blocks, "hydra.mode=MULTIRUN"])
        jobs, left_out = multirun.list_jobs(hydra, master)
    assert [job.n for job in jobs] == [*range(len(jobs))]
    return [" ".join(job.overrides) for job in jobs], left_out


@pytest.mark.parametrize(
    ("given", "jobs", "left_out"),
    [
        (
            ["model=mlp,linear", "model.width=16,32"],
            ["model=mlp model.width=16", "model=mlp model.width=32", "model=linear"],
            ["model.width: not for model=linear"],
        ),
        # the choice of a file that the sweep's own configuration does not have
        (
            ["model=linear,convnet", "model.channels=[8,8]"],
            ["model=linear", "model=convnet model.channels=[8,8]"],
            ["model.channels: not for model=linear"],
        ),
        (
            ["optimizer=sgd,adam", "model=mlp,linear", "optimizer.beta1=0.8,0.9", "optimizer.momentum=0.5"],
            [
                *("optimizer=sgd model=mlp", "optimizer=sgd model=linear"),
                *(f"optimizer=adam model={m} optimizer.beta1={b}" for m in ("mlp", "linear") for b in (0.8, 0.9)),
            ],
            ["optimizer.beta1: not for optimizer=sgd", "optimizer.momentum: not for optimizer=adam"],
        ),
        # an argument that is added: by the signature of its class
        (
            ["optimizer=adam,lbfgs,least_squares", "++optimizer.fused=false,true"],
            [
                *("optimizer=adam ++optimizer.fused=False", "optimizer=adam ++optimizer.fused=True"),
                *("optimizer=lbfgs", "optimizer=least_squares"),
            ],
            ["optimizer.fused: not for optimizer=lbfgs, optimizer=least_squares"],
        ),
        # all have it: nothing is left out, and nothing is merged
        (["model=mlp,linear", "seed=3,3"], [f"model={m} seed=3" for m in ("mlp", "mlp", "linear", "linear")], []),
    ],
)
def test_a_key_is_swept_for_the_choices_that_have_it(
    here: Path, given: list[str], jobs: list[str], left_out: list[str]
) -> None:
    found, said = listed(*given)
    # a single value that all jobs share, and some do not have, is no part of their names
    assert [job.replace(" optimizer.momentum=0.5", "") for job in found] == jobs
    assert said == left_out


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (["model=mlp,linear", "model.widht=16,32"], ["`model.widht`", "model=mlp, model=linear", "`model.width`"]),
        (["model=mlp,linear", "model.widht=16"], ["`model.widht`", "`model.width`"]),
        (["model=mlp,linear", "optimizer.lrr=1,2"], ["`optimizer.lrr`", "`optimizer.lr`"]),
        (["model=linear", "model.width=16,32"], ["model.width", "Linear"]),
        (["--block", "model=mlp", "model.widht=3", "--block", "model=linear"], ["model.widht", "`model.width`"]),
        (["--block", "--block", "model=linear"], ["--block model=mlp"]),
    ],
)
def test_a_key_that_no_choice_has_is_a_mistake(here: Path, given: list[str], facts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        listed(*given)
    says(str(error.value), *facts)


def test_an_added_argument_that_no_class_has_is_left_to_its_check(here: Path) -> None:
    jobs, left_out = listed("model=mlp,linear", "+model.biass=1,2")
    assert (len(jobs), left_out) == (4, [])


BLOCKS = ["--block", "model=mlp", "model.width=16,32", "--block", "model=linear", "optimizer=sgd", "optimizer.lr=0.1"]
JOBS = ["model=mlp model.width=16", "model=mlp model.width=32", "model=linear"]


def test_blocks_are_grids_that_are_joined(here: Path) -> None:
    jobs, _ = listed("seed=0,1", "optimizer.lr=0.5", *BLOCKS, "sweep.fresh=true")
    # the choice that one block makes is named in the other, and the nearer value wins
    assert jobs == [
        *(f"optimizer=adamw {job} seed={n}" for job in JOBS[:2] for n in (0, 1)),
        *(f"model=linear optimizer=sgd optimizer.lr=0.1 seed={n}" for n in (0, 1)),
    ]


@pytest.mark.parametrize("word", ['name="a \\"b\\""', "name='it\\'s'", "name=c\\", 'name="c:\\\\"', "name=${a}"])
def test_words_with_quotes_and_backslashes_stay_as_they_are(word: str) -> None:
    [override] = split_blocks(["--block", word])[1]
    [[found]] = OverridesParser.create().parse_override(override).value()
    assert str(found) == word


def test_the_options_of_a_block_stay_options() -> None:
    rest, blocks = split_blocks(["-m", "--block", "model=mlp", "--cfg", "job", "hydra.job.chdir=false", "~metrics"])
    assert rest == ["-m", "--cfg", "job", "hydra.job.chdir=false"]
    assert blocks == ['hydra.sweeper.blocks=[["model=mlp","~metrics"]]']


def test_python_takes_blocks_as_the_command_line_does(here: Path) -> None:
    jobs, _ = hydra_main.run_many(["seed=0,1", "optimizer.lr=0.5", *BLOCKS], sweep=multirun.list_jobs)
    assert len(jobs) == 6


@pytest.mark.parametrize(
    "blocks",
    [
        "[{model: mlp, model.width: '16,32'}, {model: linear}]",
        "['model=mlp model.width=16,32', model=linear]",
        "[[model=mlp, 'model.width=16,32'], [model=linear]]",
    ],
)
def test_an_experiment_has_blocks_and_the_command_line_wins(here: Path, blocks: str) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    text = f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {{blocks: {blocks}}}}}\n"
    (here / "conf/experiment/mine.yaml").write_text(text)
    assert listed("+experiment=mine")[0] == JOBS
    assert listed("+experiment=mine", "model.width=8") == (["model=mlp", "model=linear"], [
        "model.width: not for model=linear"
    ])  # fmt: skip


def test_a_value_in_quotes_and_a_reference_reach_the_jobs_of_a_block(here: Path) -> None:
    given = ["--block", 'tracking.experiment="a, b"', "+tracking.tags.mine=${seed}", "seed=3,4"]
    with compose.open_hydra() as hydra:
        setup_globals()
        master = compose.load(hydra, "dlrun", [*split_blocks(given)[1], "hydra.mode=MULTIRUN"])
        jobs, _ = multirun.list_jobs(hydra, master)
    assert [(j.config.tracking.experiment, j.config.tracking.tags.mine) for j in jobs] == [("a, b", 3), ("a, b", 4)]


def test_a_value_that_only_some_jobs_have_belongs_to_the_definition(here: Path) -> None:
    def digest(*given: str) -> str:
        with compose.open_hydra() as hydra:
            setup_globals()
            master = compose.load(hydra, "dlrun", ["model=linear,convnet", *given, "hydra.mode=MULTIRUN"])
            return definition.digest(definition.define(master, multirun._jobs(hydra, master)))

    one = digest("model.channels=[8,8]")
    assert one == digest("model.channels=[8,8]")
    assert len({one, digest("model.channels=[4,8]"), digest()}) == 3


SPACE = ["optimizer=sgd,adam", "model=mlp,linear", "model.width=range(16,49,16)", "optimizer.beta1=interval(0.5,0.9)"]


def spanned(*overrides: str) -> tuple[space.Space, list[str], bases.Bases]:
    with compose.open_hydra() as hydra:
        setup_globals()
        master = compose.load(hydra, "dlrun", [*overrides, "hydra.mode=MULTIRUN"])
        expansion = Expansion(hydra.config_loader, master)
        found, composed, left_out = bases.compose(
            space.read(overrides, hydra.config_loader), expansion, hydra.config_loader
        )
    return found, left_out, composed


def test_a_search_proposes_a_key_for_the_choices_that_have_it(here: Path, tmp_path: Path) -> None:
    found, left_out, composed = spanned(*SPACE, "optimizer.momentum=0.5")
    assert {*left_out} == {
        *("model.width: not for model=linear", "optimizer.beta1: not for optimizer=sgd"),
        "optimizer.momentum: not for optimizer=adam",
    }
    assert space.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.size() is None
    trials = Trials(tmp_path / "trials", found, SearchSettings(sampler="random"), higher_is_better=False)
    seen = set()
    for _ in range(24):
        params = trials.ask().params
        seen.add((params["optimizer"], params["model"]))
        assert ("model.width" in params) == (params["model"] == "mlp")
        assert ("optimizer.beta1" in params) == (params["optimizer"] == "adam")
        (overrides,) = found.overrides(params)
        assert {override.partition("=")[0] for override in overrides} == {*params}
        # what is proposed is a job as Hydra would compose it
        config = composed.config(overrides)
        assert ("width" in config.model, config.optimizer.get("momentum", 0.5)) == (params["model"] == "mlp", 0.5)
    assert len(seen) == 4
    # an earlier process may have drawn some values and not others
    again = Trials(tmp_path / "trials", found, SearchSettings(sampler="random"), higher_is_better=False)
    assert [trial.params for trial in again.open()] == [trial.params for trial in trials.open()]


def test_the_points_of_a_grid_are_distinct(here: Path, tmp_path: Path) -> None:
    found, _, _ = spanned(*SPACE[:3])
    trials = Trials(tmp_path / "trials", found, SearchSettings(sampler="grid"), higher_is_better=False)
    points = [trials.ask().params for _ in range(found.size() or 0)]
    assert len(points) == len({tuple(sorted(point.items())) for point in points}) == 8


def test_a_search_of_before_is_read_without_conditions() -> None:
    plain = space.read(SPACE).to_dict()
    assert space.from_dict({key: plain[key] for key in ("dimensions", "seeds", "fixed")}) == space.read(SPACE)


def test_a_key_that_no_choice_has_is_searched_by_nobody(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"`model.widht`(.|\n)*`model.width`"):
        spanned("model=mlp,linear", "model.widht=range(16,49,16)")


def test_one_report_compares_all(here: Path, dlrun: Callable[..., Called]) -> None:
    grid = ["model=mlp,linear", "model.width=16,32", "optimizer.lr=0.1,0.01"]
    command = ["train", "-m", *QUIET, "sweep.figures=false", *grid]
    called = dlrun(*command)
    assert called.code == 0, called.err
    says(called.out + called.err, "model.width: not for model=linear")
    (sweep,) = all_sweeps()
    overview = read_overview(sweep)
    assert [result.status for result in overview.results] == ["finished"] * 6
    rows: Sequence[Any] = tables.variables(overview).rows
    assert [*rows[1]] == ["model.width", "2", "16, 32; – where it does not apply"]
    read = [*csv.DictReader(io.StringIO(runs_csv(overview)))]
    assert {(row["model"], row["model.width"]) for row in read} == {("mlp", "16"), ("mlp", "32"), ("linear", "")}
    labels = {group.short_label(overview.swept) for group in overview.groups}
    assert labels >= {"model=linear, lr=0.1", "model=mlp, width=16, lr=0.1"}
    drawn = [figure.name for draw in sweep_figures(overview) for figure in draw()]
    assert {"against-model.width", "parallel"} <= {*drawn}
    # the same command is the same sweep
    called = dlrun(*command)
    says(called.out + called.err, "all 6 jobs have ended")
    assert len(all_sweeps()) == 1
