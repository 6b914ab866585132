"""Expanded configurations equal those that Hydra composes; groups and definitions of sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from dlrun.config import compose
from dlrun.config.check import check_config
from dlrun.errors import ConfigError
from dlrun.sweeps.jobs import definition
from dlrun.sweeps.jobs.builder import JobBuilder, group_of
from dlrun.sweeps.jobs.composed import ComposedJobs
from dlrun.sweeps.jobs.expand import Expansion

GIVEN = ["+experiment=digits", "hydra.mode=MULTIRUN", "optimizer.lr=0.1,0.3", "seed=range(3)"]

# one job each, as a sweeper hands them to the launcher
JOBS = [
    ["+experiment=digits", "optimizer.lr=0.1", "seed=0"],
    ["+experiment=digits", "optimizer.lr=0.3", "seed=2"],
    ["+experiment=digits", "model=linear", "optimizer=sgd", "optimizer.lr=1e-2"],
    ["+experiment=digits", "optimizer=sgd", "optimizer.momentum=0.5"],
    ["+experiment=polynomial", "dataset.data_seed=${seed}", "seed=4", "model.degree=7"],
    ["+experiment=digits", "+tracking.tags.mine=1", "+metric=top_k", "trainer.steps=3"],
    ["+experiment=digits", "~optimizer.weight_decay", "seed=1"],
    ["+experiment=digits", "tracking={enabled: false}", "seed=1"],
    ["+experiment=digits", "name=mine", "seed=5"],
    ["+experiment=digits", "trainer.evaluate_every=2 epochs", "tracking.experiment='a, b'"],
    ["+experiment=digits", "++trainer.clip=1.5", "seed=1"],
]


@pytest.fixture
def opened(here: Path) -> Iterator[tuple[compose.Loader, DictConfig]]:
    with compose.open_hydra() as hydra:
        setup_globals()
        assert isinstance(hydra.config_loader, compose.Loader)
        yield hydra.config_loader, compose.load(hydra, "dlrun", GIVEN)


def resolved(config: DictConfig) -> object:
    return OmegaConf.to_container(config, resolve=True)


def test_a_job_is_what_hydra_composes(opened: tuple[compose.Loader, DictConfig]) -> None:
    loader, master = opened
    expansion = Expansion(loader, master)
    for n, overrides in enumerate(JOBS):
        composed = compose.without_hydra(loader.load_sweep_config(master, list(overrides)))
        found = expansion.config(overrides, n)
        assert found == composed, overrides
        assert resolved(found) == resolved(composed), overrides


def test_choices_are_composed_once_each(
    opened: tuple[compose.Loader, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, master = opened
    calls: list[list[str]] = []
    load = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *args: calls.append(args[1]) or load(*args))
    expansion = Expansion(loader, master)
    for n in range(20):
        chosen = ("sgd", "adamw")[n % 2]
        config = expansion.config(["+experiment=digits", f"optimizer={chosen}", f"seed={n}"], n)
        assert config.seed == n
        assert chosen[:3] in config.optimizer._target_.lower()
    assert len(calls) == 2


def test_jobs_share_nothing(opened: tuple[compose.Loader, DictConfig]) -> None:
    expansion = Expansion(*opened)
    one, other = (expansion.config(["+experiment=digits", f"seed={n}"], n) for n in range(2))
    one.optimizer.lr = 9.0
    assert other.optimizer.lr != 9.0


def test_a_sweep_holds_one_configuration_at_a_time(
    opened: tuple[compose.Loader, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    config = Expansion.config
    monkeypatch.setattr(Expansion, "config", lambda self, words, n: made.append(n) or config(self, words, n))
    jobs = ComposedJobs(Expansion(*opened), [[*GIVEN[:1], f"seed={n}", "optimizer.lr=0.1"] for n in range(3)], first=5)
    assert (len(jobs), made) == (3, [])
    for count, job in enumerate(jobs, 1):
        assert made == [*range(5, 5 + count)]
        assert (job.n, job.config.seed) == (4 + count, count - 1)


def test_what_jobs_have_in_common_is_kept_once(opened: tuple[compose.Loader, DictConfig]) -> None:
    words = [*GIVEN[:1], "tracking.enabled=false"]
    overrides = [[*words, f"optimizer.lr={rate}", f"seed={n}"] for rate in (0.1, 0.3) for n in range(2)]
    one, again, other, _ = (job.config for job in JobBuilder().build(ComposedJobs(Expansion(*opened), overrides)))
    assert one["optimizer"] is again["optimizer"] is not other["optimizer"]
    assert one["trainer"] is again["trainer"] is other["trainer"]
    assert [each["optimizer"]["lr"] for each in (one, other)] == [0.1, 0.3]


def test_what_is_taken_from_hydra_is_settled_for_each_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    own = "{a: '${oc.env:API_TOKEN}', b: '${seed}', c: 'job ${hydra:job.num}'}"
    content = f"# @package _global_\nseed: ${{hydra:job.num}}\ntracking: {{tags: {own}}}\n"
    (here / "conf/experiment/mine.yaml").write_text(content)
    with compose.open_hydra() as hydra:
        setup_globals()
        master = compose.load(hydra, "dlrun", ["+experiment=mine", "hydra.mode=MULTIRUN", "optimizer.lr=1,2"])
        expansion = Expansion(hydra.config_loader, master)
        found = [expansion.config(["+experiment=mine", f"optimizer.lr={n}"], n) for n in (1, 2)]
    # other references stay: a folder keeps those to secrets
    tags = [OmegaConf.to_container(config.tracking.tags, resolve=False) for config in found]
    assert tags == [{"a": "${oc.env:API_TOKEN}", "b": "${seed}", "c": f"job {n}"} for n in (1, 2)]
    monkeypatch.setenv("API_TOKEN", "hunter2")
    assert [check_config(config)["seed"] for config in found] == [1, 2]


def test_own_overrides_are_those_that_are_swept(opened: tuple[compose.Loader, DictConfig]) -> None:
    expansion = Expansion(*opened)
    assert expansion.own(JOBS[0]) == ("optimizer.lr=0.1", "seed=0")


@pytest.mark.parametrize(
    ("override", "words"),
    [("optimizer.lrr=1", "Did you mean `optimizer.lr`"), ("model=mpl", "Did you mean `mlp`"), ("lr=1", "optimizer.lr")],
)
def test_a_mistake_in_one_job_is_told(opened: tuple[compose.Loader, DictConfig], override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Expansion(*opened).config(["+experiment=digits", override], 0)


def test_a_key_that_follows_the_seed_separates_no_groups(opened: tuple[compose.Loader, DictConfig]) -> None:
    expansion = Expansion(*opened)

    def group(*overrides: str) -> str:
        return group_of(expansion.config(["+experiment=polynomial", *overrides], 0))

    following = [group("dataset.data_seed=${seed}", f"seed={n}") for n in range(3)]
    assert len({*following}) == 1
    assert group("dataset.data_seed=1", "seed=1") not in following
    assert group("seed=0", "trainer.threads=1", "name=x", "tracking.enabled=false") == group("seed=1")
    assert group("model.degree=4") != group("model.degree=5")


def define(*overrides: str) -> dict[str, object]:
    with compose.open_hydra() as hydra:
        return definition.define(compose.load(hydra, "dlrun", [*overrides, "hydra.mode=MULTIRUN"]))


def test_two_commands_that_ask_for_the_same_are_one_sweep(here: Path) -> None:
    one = define("seed=range(3)", "optimizer.lr=0.1,0.2")
    same = define("seed=range(3)", "optimizer.lr=0.1,0.2", "tracking.enabled=false", "trainer.threads=1")
    fresh = define("seed=range(3)", "optimizer.lr=0.1,0.2", "sweep.fresh=true", "hydra.launcher.slots=1")
    assert definition.digest(one) == definition.digest(same) == definition.digest(fresh)
    for other in (
        ["seed=range(4)", "optimizer.lr=0.1,0.2"],
        ["seed=range(3)", "optimizer.lr=0.1,0.2", "model.width=3"],
    ):
        assert definition.digest(define(*other)) != definition.digest(one)
    lines = definition.differences(one, define("seed=range(3)", "optimizer.lr=0.1,0.2", "model.width=3"))
    assert lines == ["config.model.width: 128 there, 3 here"]
