"""The selection of a sweep against numpy; jobs built before the first starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrun.config import compose
from dlrun.errors import ConfigError, UserError
from dlrun.runs import build as building
from dlrun.runs import parts
from dlrun.runs.build import build
from dlrun.storage import manifest
from dlrun.storage.results import results
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.finish import is_selected
from dlrun.sweeps.jobs.builder import JobBuilder
from dlrun.sweeps.jobs.composed import ComposedJob
from dlrun.sweeps.selection import select_group
from tests.made_sweeps import group_of, made_sweep

LR = [0.1, 0.3, 1.0]


def choose(sweep: SweepDir) -> Any:
    return select_group(results(sweep), manifest.read(sweep))


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_mean_over_seeds_is_chosen(tmp_path: Path, higher: bool) -> None:
    values = np.random.default_rng(3).uniform(size=(3, 5))
    sweep = made_sweep(
        tmp_path / "s",
        {"lr": LR, "seed": [*range(5)]},
        lambda job: {"val/error": float(values[LR.index(job["lr"]), job["seed"]])},
        higher_is_better=higher,
    )
    means = values.mean(axis=1)
    best = int(means.argmax() if higher else means.argmin())
    found = choose(sweep)
    assert found.group == group_of(lr=LR[best])
    assert found.mean == pytest.approx(means[best])
    assert found.jobs == tuple(range(5 * best, 5 * best + 5))


def test_equal_means_are_decided_by_the_validation_loss(tmp_path: Path) -> None:
    sweep = made_sweep(
        tmp_path / "s", {"lr": LR, "seed": [0, 1]}, lambda job: {"val/error": 0.5, "val/loss": -job["lr"]}
    )
    assert choose(sweep).group == group_of(lr=1.0)


@pytest.mark.parametrize(
    "last", [{"status": "failed"}, {"status": "pruned"}, {"status": "killed"}, {}, {"val/error": float("nan")}]
)
def test_a_group_of_which_a_seed_is_missing_is_not_chosen(tmp_path: Path, last: dict[str, Any]) -> None:
    def metrics(job: dict[str, Any]) -> dict[str, Any]:
        best_but_for_one = job["lr"] == 0.1 and job["seed"] == 1
        return last if best_but_for_one else {"val/error": job["lr"]}

    sweep = made_sweep(tmp_path / "s", {"lr": LR, "seed": [0, 1]}, metrics)
    assert choose(sweep).group == group_of(lr=0.3)


def test_seeds_alone_are_one_group_that_needs_no_number(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"seed": [0, 1]}, lambda job: {"train/error": 0.1})
    assert choose(sweep).jobs == (0, 1)
    assert choose(sweep).mean is None


def test_nothing_finished_is_nothing_chosen(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"lr": LR}, lambda job: {"status": "failed"})
    assert choose(sweep) is None
    assert not is_selected(sweep, "0")


def candidates(*jobs: list[str]) -> list[ComposedJob]:
    return [ComposedJob(n, tuple(own), compose.config(own)) for n, own in enumerate(jobs)]


POLYNOMIAL = ["+experiment=polynomial", "tracking.enabled=false"]


def test_a_job_has_the_identity_of_its_run(here: Path) -> None:
    asked = candidates([*POLYNOMIAL, "seed=3"], [*POLYNOMIAL, "model.degree=4"])
    jobs = JobBuilder().jobs(asked)
    assert [job.identity for job in jobs] == [build(candidate.config).identity.hash for candidate in asked]
    assert len({job.group for job in jobs}) == 2


def test_a_data_set_is_loaded_and_a_kind_of_job_built_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"built": 0, "loaded": 0}
    from dlrun.sweeps.jobs import builder as define

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            count[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(define, "build", counted("built", building.build))
    monkeypatch.setattr(define, "make_dataset", counted("loaded", parts.make_dataset))
    data = "dataset.data_seed=${seed}"
    JobBuilder().jobs(
        candidates(*([*POLYNOMIAL, data, f"model.degree={d}", f"seed={s}"] for d in (1, 2) for s in range(3)))
    )
    assert count == {"built": 2, "loaded": 3}


def test_everything_that_is_wrong_is_told_at_once_with_the_jobs_overrides(here: Path) -> None:
    wrong = [[*POLYNOMIAL, f"model.degree={d}", f"trainer.steps={s}"] for d, s in ((2, 1), (-1, 1), (2, 0), (3, 0))]
    with pytest.raises(UserError) as told:
        JobBuilder().jobs(candidates(*wrong))
    text = str(told.value)
    for words in ("3 of 4 jobs", "model.degree=-1", "trainer.steps=0", "(and 1 more)", "must be greater than 0"):
        assert words in text


def test_without_a_validation_split_more_than_seeds_cannot_be_swept(here: Path) -> None:
    blind = [*POLYNOMIAL, "dataset.validation_size=0"]
    degrees = [[*blind, f"model.degree={degree}"] for degree in (1, 2)]
    with pytest.raises(ConfigError, match=r"dataset\.validation_size"):
        JobBuilder().jobs(candidates(*degrees))
    assert len(JobBuilder().jobs(candidates(*([*job, "evaluation.test=every"] for job in degrees)))) == 2
    assert len(JobBuilder().jobs(candidates([*blind, "seed=0"], [*blind, "seed=1"]))) == 2


def test_jobs_are_compared_by_one_metric_and_tested_by_one_rule(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"val/error, val/loss.*evaluation\.monitor=val/loss"):
        JobBuilder().jobs(candidates(POLYNOMIAL, ["tracking.enabled=false"]))
    with pytest.raises(ConfigError, match=r"evaluation\.test"):
        JobBuilder().jobs(candidates(*([*POLYNOMIAL, f"evaluation.test={test}"] for test in ("final", "every"))))


def test_a_users_module_counts_for_the_jobs_that_use_it(here: Path) -> None:
    (here / "part.py").write_text("WIDTH = 3\n")
    (here / "mine.py").write_text(
        "import torch\nfrom part import WIDTH\n\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(64, 10)\n"
        "    def forward(self, x):\n        return super().forward(x.flatten(1))\n"
    )
    own = ["model=linear", "model._target_=mine.Net", "tracking.enabled=false"]
    import sys

    config = compose.config(own)
    config.model = {"_target_": "mine.Net"}
    try:
        plain = build(config).config
        from dlrun.storage import sources

        before, other = sources.user_modules(plain), sources.user_modules({"model": {"_target_": "dlrun.x"}})
        (here / "part.py").write_text("WIDTH = 4\n")
        assert sources.user_modules(plain) != before
        (here / "part.py").write_text("WIDTH = 3\n")
        assert sources.user_modules(plain) == before != other
    finally:
        for name in ("mine", "part"):
            sys.modules.pop(name, None)
