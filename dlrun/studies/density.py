"""Density estimation: a richer density has a higher likelihood on unseen points (book 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.densities import LogDensity, densities
from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.analysis.statistics import paired_difference
from dlrun.datasets.moons import half_circles, moons
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, common_seeds, means
from dlrun.terminal.format import counted

__all__ = ["Density"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "val/nll"
NAMES = {"gaussian": "one normal", "gaussian_mixture": "mixture of normals", "realnvp": "invertible network"}
"""The models, from the poorest to the richest."""


@dataclass(frozen=True)
class Density:
    """The validation likelihood of three densities of the same points."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [richer_is_better(_table(results))]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        table, truth = _table(results), true_density(results)
        if table:
            drawn = "" if truth is None else " The dashed line is the entropy of the density that drew the points."
            caption = "The negative log-likelihood on validation points: a mark for each seed, a bar at the mean."
            level = None if truth is None else entropy(truth, noise=_noise(results))
            yield CaptionedFigure("likelihoods", draw_likelihoods(table, level), caption + drawn)
            x, models = _read(results)
            if truth is not None:
                models["the density that drew them"] = truth
            caption = "The densities of the first seed, over its training points; darker is denser, on one scale."
            yield CaptionedFigure("densities", densities(x, models), caption)


def richer_is_better(table: MetricTable) -> Claim:
    """Held if each density is better than the one before it, paired by seed.

    Both have to be, so that each interval may have 95 % by itself.
    """
    text = (
        "A mixture fits unseen points better than one normal does, and an invertible network better than the mixture."
    )
    seeds = common_seeds(table)
    if list(table) != list(NAMES.values()) or len(seeds) < 2:
        return judge(text, None, "It takes the three models and two common seeds.")
    found, rows = means(table, seeds), {name: {s: table[name][s] for s in seeds} for name in table}
    first, second, third = rows
    steps = [paired_difference(rows[first], rows[second]), paired_difference(rows[second], rows[third])]
    scores = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    shown = "; ".join(f"{step.mean:+.3f} ({step.low:+.3f} to {step.high:+.3f})" for step in steps)
    evidence = (
        f"{METRIC} in nats: {scores}. From one to the next, with 95 % intervals over {counted(len(seeds), 'seed')}: "
        f"{shown}."
    )
    if all(step.significant and step.mean < 0 for step in steps):
        return judge(text, True, evidence)
    return judge(text, False if any(step.significant and step.mean > 0 for step in steps) else None, evidence)


def true_density(results: Sequence[Result]) -> LogDensity | None:
    """The log-density that drew the points; None for other data than moons in their own unit."""
    config = results[0].value("dataset") if results else None
    name = f"{moons.__module__}.{moons.__name__}"
    if not config or config.get("_target_") != name or config.get("normalise") or not config.get("noise"):
        return None
    return lambda x: moons_log_density(x, _noise(results))


def moons_log_density(x: Tensor, noise: float, places: int = 2000) -> Tensor:
    """log p(x) [M] of `dataset=moons` before it is normalised.

    The integral along both half circles is a mean over so many places.
    """
    place = (torch.arange(places, dtype=torch.float64) + 0.5) / places
    centres = torch.cat([half_circles(place, torch.full((places,), c)) for c in (0, 1)])
    constant = math.log(2 * places) + math.log(2 * math.pi * noise**2)
    squares = (torch.cdist(some, centres).square() for some in torch.split(x.double(), 1024))
    parts = [torch.logsumexp(-each / (2 * noise**2), 1) for each in squares]
    return torch.cat(parts) - constant


def entropy(log_prob: LogDensity, *, noise: float, n: int = 20_000) -> float:
    """The mean negative log-density of points drawn by it, in nats."""
    g = torch.Generator().manual_seed(0)
    x = half_circles(torch.rand(n, generator=g), torch.arange(n) % 2)
    return -float(log_prob(x + noise * torch.randn(n, 2, generator=g)).mean())


def draw_likelihoods(table: MetricTable, truth: float | None) -> Figure:
    """Draw every seed's loss by model, with the truth as a line."""
    with style_context():
        fig = figure(6.4, 4.6)
        axes = fig.add_subplot()
        for i, row in enumerate(table.values()):
            axes.scatter([i] * len(row), [*row.values()], s=36, color=COLOURS[i], marker=MARKERS[i], zorder=3)
            axes.plot([i - 0.3, i + 0.3], [sum(row.values()) / len(row)] * 2, color=BLACK, linewidth=1.6)
        if truth is not None:
            axes.axhline(truth, color=BLACK, linestyle="--", linewidth=1.4, label="the density that drew them")
            axes.legend()
        axes.set(ylabel="validation loss, nats", xlim=(-0.6, len(table) - 0.4))
        axes.set_xticks(range(len(table)), [name.replace(" ", "\n", 1) for name in table])
    return fig


def _name(result: Result) -> str | None:
    config = result.value("model") or {}
    kind = str(config.get("_target_", "")).rpartition(".")[2]
    if kind == "GaussianMixture":
        return NAMES["gaussian" if config.get("components") == 1 else "gaussian_mixture"]
    return NAMES["realnvp"] if kind == "RealNVP" else None


def _table(results: Sequence[Result]) -> MetricTable:
    """The loss by model, the poorest first, then by seed."""
    found: MetricTable = {name: {} for name in NAMES.values()}
    for result in results:
        name = _name(result)
        if name and METRIC in result.metrics:
            found[name][result.job.replicate] = result.metrics[METRIC]
    return {name: row for name, row in found.items() if row}


def _noise(results: Sequence[Result]) -> float:
    return float(results[0].value("dataset")["noise"])


def _read(results: Sequence[Result]) -> tuple[Tensor, dict[str, LogDensity]]:
    """The training points of the first seed, and its models."""
    from dlrun.runs.reload.loaded import load

    first = min(result.job.seed for result in results)
    runs = {_name(result): load(str(result.run.path)) for result in results if result.job.seed == first}
    data = next(iter(runs.values())).data.train
    x = data.gather(torch.arange(len(data))).x.cpu()

    def ask(model: torch.nn.Module) -> LogDensity:
        log_prob: LogDensity = model.cpu().log_prob  # type: ignore[assignment]
        return torch.no_grad()(log_prob)

    return x, {name: ask(runs[name].model) for name in NAMES.values() if name in runs}
