"""The run that others begin with: trained first, once, and found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun.config import compose
from dlrun.storage import checkpoint
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.manifest import read
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.jobs import pretrained
from dlrun.sweeps.jobs.definition import define, digest
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "model.hidden=[4]")
TYPED = ("seed=7", "trainer.steps=3", *QUICK)


def pretrain(*overrides: str) -> str:
    """A list on the command line: text with `=` in it is quoted."""
    return f"pretrain=[{','.join(json.dumps(each) for each in overrides)}]"


FIRST = pretrain(*TYPED)
BEGUN = (*QUICK, FIRST, "trainer.steps=2")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """The runs of another test's folder."""
    pretrained.run_of.cache_clear()


def definition(*overrides: str) -> str:
    with compose.open_hydra() as hydra:
        return digest(define(compose.load(hydra, "dlrun", [*overrides, "hydra.mode=MULTIRUN"])))


def singles() -> list[RunDir]:
    return [run for run in all_runs() if not run.of_a_sweep]


def test_a_sweep_trains_first_what_its_jobs_begin_with(here: Path, call: Call) -> None:
    sweep = (
        "train",
        "-m",
        "hydra/launcher=batched",
        *BEGUN,
        "init_from=null,pretrained",
        "seed=0,1",
        "optimizer.lr=0",
        "sweep.figures=false",
    )
    told = call("check", *sweep[1:])
    assert told.code == 0, told.err
    says(told.out, "dlrun train seed=7")
    assert not all_runs()
    done = call(*sweep)
    assert done.code == 0, done.err
    (first,) = singles()
    assert first.summary().seed == 7
    weights = checkpoint.load_best(first.best).model
    (folder,) = all_sweeps()
    for job in read(folder).jobs:
        found = checkpoint.load(folder.job(job.n).last).model
        begun = all(torch.equal(found[name], value) for name, value in weights.items())
        assert begun == (job.config["init_from"] is not None) == ("init_from=pretrained" in job.overrides)
    # another sweep begins with the same run, and one with other weights would train them
    pretrained.run_of.cache_clear()
    says(call("check", *sweep[1:], "trainer.batch_size=32").out, f"begun with: {first.path.relative_to(here)}")
    other = pretrain(*TYPED, "trainer.steps=4")
    says(call("check", *sweep[1:], other).out, "dlrun train seed=7", "trainer.steps=4")
    assert definition(*sweep[2:]) == definition(*sweep[2:]) != definition(*sweep[2:], other)


def test_a_run_begins_with_it_too_and_is_resumed_without_it(here: Path, call: Call) -> None:
    done = call("train", *BEGUN, "init_from=pretrained", "init_from_skip=[layers.2]")
    assert done.code == 0, done.err
    first, run = singles()
    assert run.summary().origin["init_from"] == str(first.path.relative_to(here))
    assert not run.summary().origin["unknown"]
    assert call("resume", run.id, "trainer.steps=4").code == 0
    assert call("test", run.id).code == 0
    assert len(all_runs()) == 2
    # an unfinished run is none to begin with
    with first.edit_summary() as summary:
        summary.status = "failed"
    pretrained.run_of.cache_clear()
    says(call("check", *BEGUN, "init_from=pretrained").out, "dlrun train seed=7")
    # a job that would begin with it is none of those that begin at random
    says(call("check", "-m", *BEGUN, "init_from=null,pretrained").out, "2 jobs in 2 groups")


def test_a_try_begins_with_a_try(here: Path, call: Call) -> None:
    done = call("train", *BEGUN, "init_from=pretrained", "trainer.fast=true")
    assert done.code == 0, done.err
    first, _ = singles()
    assert first.summary().steps == 2


def test_mistakes(call: Call) -> None:
    refuses(call("train", *QUICK, "init_from=pretrained"), "pretrain", "init_from=RUN")
    for given, fact in {
        "hydra.run.dir=x": "hydra.run.dir=x",
        "trusted=[evil]": "trusted",
        "+trusted=[evil]": "trusted",
        "hydra/launcher=basic": "hydra/launcher",
        "seed=1,2": "several values",
        "modle=mlp": "Did you mean",
        "init_from=pretrained": "another beginning",
    }.items():
        refuses(call("train", *QUICK, pretrain(given), "init_from=pretrained"), fact)
    refuses(call("train", *QUICK, pretrain(r"name=\${oc.env:HOME}"), "init_from=pretrained"), "has no place there")
    assert not all_runs()


def test_a_run_that_fails_is_told(call: Call) -> None:
    done = call("train", *BEGUN, "init_from=pretrained", pretrain(*TYPED, "optimizer.lr=1e38"))
    assert done.code == 1
    says(done.err, "has failed", "optimizer.lr=1e38")
