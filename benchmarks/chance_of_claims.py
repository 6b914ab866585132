"""How often each claim of each study holds in runs of pure noise."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.studies.density import Density
from dlrun.studies.double_descent import DoubleDescent
from dlrun.studies.double_descent_epochs import DoubleDescentEpochs
from dlrun.studies.fine_tuning import FineTuning
from dlrun.studies.learning_rate import LearningRate
from dlrun.studies.metric_learning import OF_INPUTS, RECALL, MetricLearning
from dlrun.studies.overfitting import Overfitting
from dlrun.studies.polynomial_capacity import PolynomialCapacity
from dlrun.studies.scaling_laws import ScalingLaws
from dlrun.studies.schedules import Schedules
from dlrun.studies.study import Study
from dlrun.studies.weight_decay import WeightDecay

Metrics = Callable[[np.random.Generator], Mapping[str, float]]
Config = Mapping[str, Any]


class NoisyRun(Result):
    """A run of made-up curves, without a folder."""

    def curves(self) -> Curves:
        found: Curves = self.job.config["curves"]
        return found


def _run(n: int, config: Config, metrics: Mapping[str, float], curves: Curves) -> NoisyRun:
    nested: dict[str, Any] = {"name": "noise", "seed": 0, "curves": curves}
    for key, value in config.items():
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    flop = config.get("flop")
    known = {"metrics": dict(metrics), "steps": 1000, "spec": {"classes": 10}}
    summary = Summary({**known, "flop_per_step": flop, "parameters": config.get("size")})
    return NoisyRun(Job(n, (), nested, str(n), "group"), RunDir.__new__(RunDir), "finished", summary)


USUAL = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "error", "mse")]
METRICS = {
    "density": ["val/nll"],
    "metric_learning": [f"{split}/{name}" for split in ("val", "test") for name in (RECALL, OF_INPUTS)],
}
"""Of the studies that look at others, their metrics."""


def _metrics(random: np.random.Generator, names: Sequence[str], scale: float, *, skewed: bool) -> dict[str, float]:
    values = random.lognormal(0, 1, len(names)) if skewed else 1 + scale * random.normal(size=len(names))
    return dict(zip(names, values.tolist(), strict=True))


def _curves(random: np.random.Generator, scale: float) -> Curves:
    # two to a doubling: as far apart as the bins of double_descent_epochs
    steps = sorted({round(2 ** (i / 2)) for i in range(17)})
    return {
        name: [(step, 2 * float(np.exp(scale * random.normal()))) for step in steps]
        for name in ("train/loss", "val/loss", "val/error")
    }


# each study with the grid and the seeds of its experiment
GRIDS: dict[str, tuple[Study, list[Config], int]] = {
    "density": (
        Density(),
        [
            {"model._target_": f"models.{name}", "model.components": n}
            for name, n in (("GaussianMixture", 1), ("GaussianMixture", 8), ("RealNVP", None))
        ],
        5,
    ),
    "double_descent": (
        DoubleDescent(),
        [{"model.width": w} for w in (4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024)],
        5,
    ),
    "double_descent_epochs": (
        DoubleDescentEpochs(),
        [{"model.width": w, "trainer.ema": d, "dataset.label_noise": 0.2} for w in (16, 128) for d in (None, 0.98)],
        20,
    ),
    "fine_tuning": (
        FineTuning(),
        [{"dataset.per_class": n, "init_from": run} for n in (10, 30, 100, 300, 1000) for run in (None, "run")],
        5,
    ),
    "learning_rate": (LearningRate(), [{"optimizer.lr": 1e-4 * 3.5**i} for i in range(10)], 3),
    "metric_learning": (MetricLearning(), [{"loss.mining": m} for m in ("random", "hard", "semi_hard")], 5),
    "overfitting": (Overfitting(), [{}], 5),
    "polynomial_capacity": (PolynomialCapacity(), [{"model.degree": d} for d in range(10)], 5),
    "schedules": (
        Schedules(),
        [
            {"schedule._target_": f"curves.{name}", "optimizer.lr": rate}
            for name in ("constant", "cosine", "linear", "step")
            for rate in (0.02, 0.04, 0.08, 0.16)
        ],
        8,
    ),
    "weight_decay": (WeightDecay(), [{"optimizer.weight_decay": w} for w in (0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)], 3),
    "scaling_laws": (
        ScalingLaws(),
        [
            {"size": n, "flop": 6 * n * 2048, "dataset.train_size": d, "model.width": n}
            for n in (8_000, 16_000, 27_000, 56_000, 95_000)
            for d in (25_600, 64_000, 160_000, 400_000, 1_000_000)
        ]
        + [{"size": 950_000, "flop": 6 * 950_000 * 2048, "dataset.train_size": 1_000_000, "model.width": 0}],
        1,
    ),
}
NOISES = {"normal, 1 %": (0.01, False), "normal, 10 %": (0.1, False), "lognormal": (0.1, True)}


def rates(trials: int, noise: str) -> Iterator[tuple[str, str, Counter[str]]]:
    """Yield (study, claim, verdicts) over `trials` sweeps without any effect."""
    scale, skewed = NOISES[noise]
    for name, (study, grid, seeds) in GRIDS.items():
        print(f"{name}, {noise}", file=sys.stderr, flush=True)
        random = np.random.default_rng(0)
        verdicts: dict[str, Counter[str]] = {}
        for _ in range(trials):
            runs = _sweep(random, grid, seeds, METRICS.get(name, USUAL), scale, skewed=skewed)
            for claim in study.claims(runs):
                verdicts.setdefault(claim.text, Counter())[claim.verdict] += 1
        yield from ((name, text, found) for text, found in verdicts.items())


def _sweep(
    random: np.random.Generator, grid: Sequence[Config], seeds: int, names: Sequence[str], scale: float, *, skewed: bool
) -> list[Result]:
    found: list[Result] = []
    for n, (config, seed) in enumerate((config, seed) for config in grid for seed in range(seeds)):
        metrics = _metrics(random, names, scale, skewed=skewed)
        found.append(_run(n, {**config, "seed": seed}, metrics, _curves(random, 1.0 if skewed else scale)))
    return found


def table(trials: int) -> list[list[str]]:
    """The share of sweeps in which each claim is held, by noise, and not held under the first one."""
    found: dict[tuple[str, str], list[str]] = {}
    for noise in NOISES:
        for study, text, verdicts in rates(trials, noise):
            found.setdefault((study, text), []).append(f"{verdicts['held'] / trials:.1%}")
    return [["study", "claim", *NOISES], *([study, text, *cells] for (study, text), cells in found.items())]
