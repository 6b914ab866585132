"""The fits of a scaling study: one law of parameters N and tokens D, a line a panel, and the compute frontier.

N counts all parameters, embeddings included: without them small models have another exponent (Pearce and Song 2024,
arXiv:2406.12907). The floor E is not the entropy of text, but the loss that remains after the given steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlrun.studies.scaling.power_law import LogLogLine, PowerLaw, fit_law, fit_line

# A model is held out of the fit if it has this many times the parameters of the next smaller one.
HELD_OUT_RATIO = 5.0
BINS_PER_DECADE = 6  # points of the compute frontier


@dataclass(frozen=True)
class SizedRun:
    """A finished run with its sizes and its test loss.

    `tokens` are those of its training text, `flop` all its steps'. `curve` has the validation losses as (FLOP so far,
    loss).
    """

    parameters: float
    tokens: float
    flop: float
    loss: float
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class SizeLaw:
    """A law of parameters, tokens or both.

    `names` are its quantities, in its order.
    """

    law: PowerLaw
    names: tuple[str, ...]

    def sizes(self, run: SizedRun) -> tuple[float, ...]:
        """The run's quantities in the order of the law's arguments."""
        return tuple(getattr(run, name) for name in self.names)


def split_held_out(runs: Sequence[SizedRun]) -> tuple[list[SizedRun], list[SizedRun]]:
    """Split off the runs of a much larger model.

    Returns (runs to fit, larger ones). Larger is at least `HELD_OUT_RATIO` times the parameters of the next model.
    """
    sizes = sorted({r.parameters for r in runs})
    if len(sizes) < 2 or sizes[-1] < HELD_OUT_RATIO * sizes[-2]:
        return list(runs), []
    return [r for r in runs if r.parameters < sizes[-1]], [r for r in runs if r.parameters == sizes[-1]]


def panel_runs(runs: Sequence[SizedRun], name: str) -> list[SizedRun]:
    """The runs along `name`, with the most of the other."""
    other = "tokens" if name == "parameters" else "parameters"
    most = max((getattr(r, other) for r in runs), default=0)
    return [r for r in runs if getattr(r, other) == most]


def fit_size_law(runs: Sequence[SizedRun]) -> SizeLaw | None:
    """Fit L(N, D), or the law of one quantity.

    A quantity gets a term if it varies.
    """
    names = tuple(n for n in ("parameters", "tokens") if len({getattr(r, n) for r in runs}) > 1)
    law = fit_law([r.loss for r in runs], *([getattr(r, n) for r in runs] for n in names)) if names else None
    return SizeLaw(law, names) if law else None


def fit_size_line(runs: Sequence[SizedRun], name: str) -> LogLogLine | None:
    """Fit a line in log-log to a panel's runs."""
    return fit_line([r.loss for r in runs], [getattr(r, name) for r in runs])


def frontier(runs: Sequence[SizedRun]) -> list[tuple[float, float]]:
    """The lower envelope of validation curves: (FLOP, least loss).

    One point per bin of log FLOP, from the FLOP of the cheapest whole run on. Points inside a run come before its
    learning rate has fallen, so they lie above the loss of a run of that length.
    """
    begin = min((r.flop for r in runs), default=0)
    bins: dict[int, tuple[float, float]] = {}
    least = math.inf
    for flop, loss in sorted(point for r in runs for point in r.curve):
        i = math.floor(BINS_PER_DECADE * math.log10(flop))
        # 0.999: the last point of the cheapest run counts, whatever rounding did to its FLOP
        if flop >= begin * 0.999 and (loss < least or i not in bins):
            bins[i] = flop, min(loss, least)
        least = min(least, loss)
    return [bins[i] for i in sorted(bins)]


def format_slope(line: LogLogLine) -> str:
    """A line's exponent with its 95 % interval: `0.076 (0.060 to 0.092)`."""
    return f"{-line.slope:.3f} ({-line.high:.3f} to {-line.low:.3f})"


def format_exponent(law: PowerLaw, i: int = 0) -> str:
    """An exponent with its 95 % interval.

    >>> format_exponent(fit_law([1 + 4 / n**0.5 for n in (1, 4, 16, 64, 256)], [1, 4, 16, 64, 256]))
    '0.500 (95 %: 0.500 to 0.500)'
    """
    low, high = law.exponent_interval(i)
    return f"{law.exponent(i):.3f} (95 %: {low:.3f} to {high:.3f})"
