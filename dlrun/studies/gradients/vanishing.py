"""Vanishing gradients: the factor by which a layer scales them on their way back from the loss (book 3.4).

The norm of the gradient at the input of each activation, of one sample at a time, at the initial weights. A line is
fitted to its logarithm over the layers of each run. The seeds' slopes are independent, the layers of a run are not:
what one layer loses, all before it have lost. So intervals are those of the mean slope over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.style import figure, style_context
from dlrun.analysis.intervals import confidence_interval
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable

__all__ = ["VanishingGradient"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN, GUARDED = ("tanh", "relu"), ("normalised", "residual")
INITS = {"normal": "small normal weights", "glorot": "Glorot's initialisation", "he": "He's initialisation"}
STRAIGHT = 0.95
"""The share of the variation over layers that a line has to explain."""

Norms = dict[int, float]
"""The norm of each layer's gradient, the layers counted from the input."""


@dataclass(frozen=True)
class Factor:
    """The factor of a layer, geometric mean over `n` seeds with its 95 % interval.

    `straight` is the least share of a run's variation that its line explains.
    """

    value: float
    low: float
    high: float
    straight: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    def near(self, expected: float, tolerance: float) -> bool | None:
        """Is it within a relative `tolerance` of a number? None if the interval does not tell."""
        least, most = expected * (1 - tolerance), expected * (1 + tolerance)
        if least <= self.low and self.high <= most:
            return True
        return False if self.high < least or self.low > most else None


@dataclass(frozen=True)
class VanishingGradient:
    """The factor a layer of plain, normalised and residual stacks.

    A factor is the expected one within a relative `tolerance`.
    """

    tolerance: float = 0.1

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        factors = {case: fit_factor(list(runs.values())) for case, runs in _by_case(results).items()}
        known = {case: factor for case, factor in factors.items() if factor is not None}
        return [self.vanishes(known), self.follows_theory(known), self.is_kept(known)]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        cases = _by_case(results)
        if cases:
            caption = (
                "The norm of the gradient at the input of each layer's activation: median and range over the seeds. In "
                "the legend the factor that a layer further from the loss makes."
            )
            yield CaptionedFigure("vanishing_gradient", draw(cases), caption)

    def vanishes(self, factors: Mapping[tuple[str, str], Factor]) -> Claim:
        """Held if plain stacks with small weights lose a constant factor a layer.

        Undecided if the interval of a factor has 1 in it.
        """
        text = "With small weights the gradient of a plain stack shrinks geometrically with the distance from the loss."
        found = {layer: factors[layer, "normal"] for layer in PLAIN if (layer, "normal") in factors}
        if len(found) < len(PLAIN):
            return judge(text, None, "It takes tanh and relu with small normal weights, on two seeds.")
        each = [False if f.low >= 1 or f.straight < STRAIGHT else True if f.high < 1 else None for f in found.values()]
        factor = "; ".join(f"{layer} {f}" for layer, f in found.items())
        straight = min(f.straight for f in found.values())
        evidence = f"Factor a layer: {factor}. A line explains {straight:.1%} or more of each run's logarithms."
        return judge(text, _all(each), evidence)

    def follows_theory(self, factors: Mapping[tuple[str, str], Factor]) -> Claim:
        """Held if ReLU has the factors 1 and 1/√2."""
        text = "A ReLU stack keeps the gradient at He's initialisation and loses 1/√2 a layer at Glorot's."
        expected = {"he": 1.0, "glorot": math.sqrt(0.5)}
        found = {init: factors["relu", init] for init in expected if ("relu", init) in factors}
        if len(found) < 2:
            return judge(text, None, "It takes relu with both initialisations, on two seeds.")
        evidence = ", ".join(
            f"{found[init]} at {INITS[init]}, expected {value:.3g}" for init, value in expected.items()
        )
        near = [found[init].near(value, self.tolerance) for init, value in expected.items()]
        return judge(text, _all(near), f"{evidence} (within {self.tolerance:.0%}).")

    def is_kept(self, factors: Mapping[tuple[str, str], Factor]) -> Claim:
        """Held if normalised and residual stacks have a factor near 1 at every initialisation."""
        text = (
            "With layer norm, and with layer norm and residual connections, the factor is near 1 at any initialisation."
        )
        cases = [(layer, init) for layer in GUARDED for init in INITS]
        if any(case not in factors for case in cases):
            return judge(text, None, "It takes normalised and residual with all three initialisations, on two seeds.")
        worst = max((factors[case] for case in cases), key=lambda f: max(abs(f.low - 1), abs(f.high - 1)))
        evidence = "; ".join(f"{layer}, {init} {factors[layer, init]}" for layer, init in cases)
        near = [factors[case].near(1.0, self.tolerance) for case in cases]
        return judge(text, _all(near), f"{evidence}. The furthest from 1: {worst} (near: within {self.tolerance:.0%}).")


def layer_norms(curves: Curves) -> Norms:
    """Each layer's gradient norm, the root mean square over the steps.

    >>> layer_norms({"grad_norm/layers.0.shift": [(1, 3.0), (2, 4.0)], "grad_norm/leave": [(1, 1.0)]})
    {0: 3.5355339059327378}
    """
    found = {}
    for name, points in curves.items():
        parts = name.split(".")
        if name.startswith("grad_norm/layers.") and parts[-1] == "shift":
            found[int(parts[1])] = math.sqrt(sum(value**2 for _, value in points) / len(points))
    return dict(sorted(found.items()))


def fit_factor(runs: Sequence[Norms]) -> Factor | None:
    """Fit the factor a layer; None for fewer than two runs.

    >>> str(fit_factor([{0: 1.0, 1: 2.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 4.0}]))
    '0.5 (0.5 to 0.5)'
    """
    lines = [line for line in map(_line, runs) if line is not None]
    if len(lines) < 2:
        return None
    slopes = np.array([slope for slope, _ in lines])
    low, high = confidence_interval(slopes)
    # towards the input, the other way than layers are counted
    value, least, most = (math.exp(-slope) for slope in (float(slopes.mean()), high, low))
    return Factor(value, least, most, straight=min(share for _, share in lines), n=len(lines))


def draw(cases: Mapping[tuple[str, str], Mapping[Any, Norms]]) -> Figure:
    """Draw the norms over the layers, a panel for each initialisation.

    `cases` are a layer's kind and an initialisation; their runs are by seed.
    """
    inits = [init for init in INITS if any(case[1] == init for case in cases)]
    with style_context():
        fig = figure(5.4 * len(inits), 4.6)
        first = None
        for i, init in enumerate(inits):
            axes = first = fig.add_subplot(1, len(inits), i + 1, sharey=first)
            tables = {}
            for layer in (*PLAIN, *GUARDED):
                if runs := cases.get((layer, init)):
                    factor = fit_factor(list(runs.values()))
                    tables[f"{layer}: {factor.value:.2f}" if factor else layer] = _table(runs)
            draw_tables(axes, tables)
            axes.set(yscale="log", xlabel="layer", title=INITS[init], ylabel="" if i else "norm of the gradient")
            axes.set_xticks([layer for layer in next(iter(tables.values())) if layer % 4 == 0 or layer == 1])
            axes.legend(title="factor a layer", fontsize=11, title_fontsize=11)
    return fig


def _line(norms: Norms) -> tuple[float, float] | None:
    """The slope of the logarithms over the layers, and the share of their variation that a line explains."""
    if len(norms) < 3 or not all(0 < value < math.inf for value in norms.values()):
        return None
    x, y = np.array([*norms], dtype=np.float64), np.log([*norms.values()])
    slope, start = np.polyfit(x, y, 1)
    left, whole = float(np.square(y - start - slope * x).sum()), float(np.square(y - y.mean()).sum())
    return float(slope), 1 - left / whole if whole else 1.0


def _by_case(results: Sequence[Result]) -> dict[tuple[str, str], dict[Any, Norms]]:
    found: dict[tuple[str, str], dict[Any, Norms]] = {}
    for result in results:
        if norms := layer_norms(result.curves()):
            case = str(result.value("model.layer")), str(result.value("model.init"))
            found.setdefault(case, {})[result.job.replicate] = norms
    return found


def _table(runs: Mapping[Any, Norms]) -> MetricTable:
    table: MetricTable = {}
    for seed, norms in runs.items():
        for layer, value in norms.items():
            table.setdefault(layer + 1, {})[seed] = value
    return table


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    if False in verdicts:
        return False
    return None if None in verdicts else True
