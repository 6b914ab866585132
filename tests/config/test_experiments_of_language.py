"""The experiments on texts: they compose, have the numbers that they say, and train, on a text that needs no file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from benchmarks.gpt import Recipe
from dlrun.config import compose
from dlrun.models.gpt_sizes import choose_size
from dlrun.schedules.curves import cosine
from dlrun.storage.lookup import all_runs
from dlrun.sweeps.jobs.scale import scale_values
from hydra_plugins.dlrun_sweeper.grid import beside
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
CONF = Path(__file__).parents[2] / "conf" / "experiment"
TEXTS = ("shakespeare", "wikitext2", "text", "scaling_laws")
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem.startswith(TEXTS))
TWIN = ("dataset=stdlib", "dataset.size=100000", "dataset.tokenizer=byte", "dataset.context=32")
QUICK = ("trainer.fast=true", "tracking.enabled=false", "trainer.figures=false", "trainer.threads=1")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_composes_and_says_its_command(name: str, call: Call) -> None:
    assert f"# dlrun train +experiment={name}\n" in (CONF / f"{name}.yaml").read_text()
    done = call("train", f"+experiment={name}", "--cfg", "job")
    assert done.code == 0, done.err
    config = yaml.safe_load(done.out)
    assert config["loss"]["_target_"].endswith("cross_entropy")


@pytest.mark.parametrize(
    ("name", "sizes", "batch", "lr"),
    # on a CPU at twice nanoGPT's rate, which its few steps want
    [("shakespeare_char", (4, 4, 128, 64, 2000), 12, 2e-3), ("shakespeare_char_gpu", (6, 6, 384, 256, 5000), 64, 1e-3)],
)
def test_the_numbers_are_nanogpts(name: str, sizes: tuple[int, ...], batch: int, lr: float, here: Path) -> None:
    config = compose.config([f"+experiment={name}"])
    assert (*choose_size(config.model.size), config.dataset.context, config.trainer.steps) == sizes
    theirs = Recipe()
    ours = config.optimizer
    assert (ours.lr, ours.beta1, ours.beta2, ours.weight_decay) == (lr, theirs.beta1, 0.99, theirs.weight_decay)
    assert (config.trainer.batch_size, config.trainer.clip) == (batch, theirs.clip)
    end = cosine(sizes[-1], sizes[-1], warmup=config.schedule.warmup, floor=config.schedule.floor)
    assert end == pytest.approx(0.1)
    assert config.schedule.warmup == 100


@pytest.mark.parametrize(
    "overrides",
    [
        ["+experiment=shakespeare_char"],
        ["+experiment=shakespeare_char_fast"],
        ["+experiment=shakespeare_bpe", "dataset.tokenizer=bpe", "dataset.vocabulary_size=300"],
        ["+experiment=text"],
        ["+experiment=wikitext2_lstm"],
        ["+experiment=wikitext2_ngram"],
    ],
    ids=lambda overrides: " ".join(overrides[:1]),
)
def test_an_experiment_trains(overrides: list[str], call: Call) -> None:
    done = call("train", overrides[0], *TWIN, *overrides[1:], *QUICK)
    assert done.code == 0, done.err
    metrics: dict[str, Any] = all_runs()[-1].summary().metrics
    assert {"val/perplexity", "val/bits_per_byte", "test/perplexity"} <= metrics.keys()


# -- the sweep of the scaling laws -------------------------------------------------------------------------------------


def test_the_larger_run_stands_beside_the_grid(call: Call) -> None:
    text = ("dataset=stdlib", "dataset.size=100000", "dataset.tokenizer=byte", "dataset.context=32")
    done = call(
        "check",
        "+experiment=scaling_laws",
        *text,
        "model.width=8,16",
        "dataset.train_size=2000,4000",
        "hydra.sweeper.also=[{model.width: 52, dataset.train_size: 4000}]",
        "trainer.threads=1",
    )
    assert done.code == 0, done.err
    jobs = re.findall(r"model\.width=(\d+) dataset\.train_size=(\d+) seed=0", done.out)
    assert jobs == [("52", "4000"), *[(w, s) for w in ("8", "16") for s in ("2000", "4000")]]


@pytest.mark.parametrize("scale", [0.25, 1, 4, 10, 100])
def test_the_larger_run_is_ten_times_the_largest_of_the_grid(scale: float) -> None:
    sweeper = yaml.safe_load((CONF / "scaling_laws.yaml").read_text())["hydra"]["sweeper"]
    config = OmegaConf.create({"trainer": {"steps": 1000, "evaluate_every": 100}})
    grid = scale_values(sweeper["params"], scale, sweeper["scaled"], config)
    widths = [int(width) for width in grid["model.width"].split(",")]
    (larger,) = sweeper["also"]
    powers = {key: power for key, power in sweeper["scaled"].items() if key in larger}
    larger = scale_values(larger, scale, powers, config)
    assert 9 < int(larger["model.width"]) ** 2 / max(widths) ** 2 < 12
    assert str(larger["dataset.train_size"]) == grid["dataset.train_size"].split(",")[-1]
    if scale > 1:
        # parameters, but for the rounding of widths, text and steps in proportion
        assert max(widths) ** 2 / 64**2 == pytest.approx(scale, rel=0.1)
        assert (grid["trainer.steps"], grid["trainer.evaluate_every"]) == (str(1000 * scale), str(100 * scale))


def test_one_dial_makes_the_whole_sweep_larger(call: Call) -> None:
    text = ("dataset=stdlib", "dataset.size=100000", "dataset.tokenizer=byte", "dataset.context=32")
    small = (
        "hydra.sweeper.params={model.width: '8,16', dataset.train_size: '2000,4000', seed: '0'}",
        "hydra.sweeper.also=[{model.width: 52, dataset.train_size: 4000}]",
    )
    done = call("check", "+experiment=scaling_laws", *text, *small, "hydra.sweeper.scale=4", "trainer.threads=1")
    assert done.code == 0, done.err
    jobs = re.findall(r"model\.width=(\d+) dataset\.train_size=(\d+) seed=0 trainer.steps=4000", done.out)
    assert jobs == [("104", "16000"), *[(w, s) for w in ("16", "32") for s in ("8000", "16000")]]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("hydra.sweeper.scale=0",), "above 0"),
        (("hydra.sweeper.scale=2", "hydra.sweeper.params={model.width: 'range(3)'}"), "multiplies numbers"),
        (("hydra.sweeper.scale=2", "~hydra.sweeper.scaled"), "no such dial"),
    ],
)
def test_a_dial_that_cannot_be_turned_is_told(call: Call, overrides: tuple[str, ...], told: str) -> None:
    done = call("check", "+experiment=scaling_laws", "dataset=stdlib", *overrides)
    refuses(done, told)


def test_jobs_beside_a_grid_keep_what_they_do_not_name() -> None:
    jobs = [[f"lr={lr}", f"width={width}", f"seed={seed}"] for lr in (1, 2) for width in (8, 16) for seed in (0, 1)]
    large = {"width": 99, "lr": 1}
    assert beside(jobs, [large]) == [["lr=1", "width=99", "seed=0"], ["lr=1", "width=99", "seed=1"]]
    assert beside(jobs, []) == []
    assert beside([["seed=0"]], [{"dataset.train_size": None}]) == [["seed=0", "dataset.train_size=null"]]
    assert beside(jobs, [{"width": 8}]) == []  # in the grid already
