"""Scaling laws: the test loss against compute, data and parameters is a power law (Kaplan et al. 2020; book 3.7).

The sweep is a grid of models and of training texts, every run as many steps as the others. One law of both,
L(N, D) = E + A/N^α + B/D^β (`power_law`), is fitted to the test losses of its runs. One more run, with ten times the
parameters and so the compute, takes no part in the fit: the law predicts its loss, and the study compares. What the
straight line through the runs of a panel says, Kaplan's law without a floor, stands beside it.

N counts all parameters, embeddings among them: without them small models show another exponent (Pearce and Song
2024, arXiv:2406.12907). E is not the entropy of text, but what so many steps leave of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlrun.storage.results import Result
from dlrun.studies.power_law import Law, LogLogLine, fit_law, fit_line
from dlrun.studies.study import CaptionedFigure, Claim, judge

__all__ = ["ScalingLaws"]

HELD_OUT = 5.0
"""A model of so many times the parameters of the next smaller takes no part in the fit."""
LEFT = 0.03
"""What a law may leave of the losses, as the root mean square of log L: 3 %."""
BINS = 6
"""Points of the frontier a decade of compute."""
WORDS = {"parameters": "the number of parameters", "tokens": "the size of the training text"}


@dataclass(frozen=True)
class SizedRun:
    """A finished run: parameters, tokens of its training text, operations of all its steps, test loss, curve.

    The curve has the operations so far and the validation loss.
    """

    parameters: float
    tokens: float
    flop: float
    loss: float
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class TrialLaw:
    """The law of the trials, of those of parameters and tokens that they vary."""

    law: Law
    names: tuple[str, ...]

    def sizes(self, trial: SizedRun) -> tuple[float, ...]:
        """Return where a trial stands, as the law counts."""
        return tuple(getattr(trial, name) for name in self.names)


@dataclass(frozen=True)
class ScalingLaws:
    """The laws of the loss over models, texts and compute, and whether they predict a run that is much larger."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        """Return whether the loss is a power law of each of the three, and whether the law predicts the larger run."""
        trials, larger = split_held_out(read_trials(results))
        fitted = fit_trials(trials)
        return [
            follows(trials, fitted, "parameters"),
            follows(trials, fitted, "tokens"),
            follows_compute(frontier(trials)),
            predicts_larger(trials, fitted, larger),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        """Yield the three panels, and the whole grid with its law."""
        from dlrun.studies.scaling_panels import grid, panels

        trials, larger = split_held_out(read_trials(results))
        if not trials:
            return
        caption = (
            "Loss against compute, size of the training text and parameters, both axes logarithmic. Dots: the runs "
            "with the most of the other quantity, and a straight line through them, dashed beyond them, its exponent "
            "with the 95 % interval; dotted: the one law fitted to all runs. Star: the run held out, beside the 95 % "
            "intervals that the line (solid) and the law (dotted) predict. Compute: validation curves within the runs "
            "(grey), and the law of their lower envelope."
        )
        yield CaptionedFigure("scaling_laws", panels(trials, larger), caption)
        fitted = fit_trials(trials)
        if fitted and len(fitted.names) == 2:
            caption = "Test loss of every run against its parameters, a line a training text: the one law of both."
            yield CaptionedFigure("grid", grid(trials, larger, fitted), caption)


def read_trials(results: Sequence[Result]) -> list[SizedRun]:
    """Return the runs that have all that is needed, the smallest first."""
    return sorted((t for t in map(_trial, results) if t is not None), key=lambda t: (t.parameters, t.tokens))


def split_held_out(trials: Sequence[SizedRun]) -> tuple[list[SizedRun], list[SizedRun]]:
    """Return the trials that the laws are fitted to, and those of the model that is much larger than all others."""
    sizes = sorted({t.parameters for t in trials})
    if len(sizes) < 2 or sizes[-1] < HELD_OUT * sizes[-2]:
        return list(trials), []
    return [t for t in trials if t.parameters < sizes[-1]], [t for t in trials if t.parameters == sizes[-1]]


def panel_trials(trials: Sequence[SizedRun], name: str) -> list[SizedRun]:
    """Return the trials of a panel: those along `name` at the most of the other quantity."""
    other = "tokens" if name == "parameters" else "parameters"
    most = max((getattr(t, other) for t in trials), default=0)
    return [t for t in trials if getattr(t, other) == most]


def fit_trials(trials: Sequence[SizedRun]) -> TrialLaw | None:
    """Return the law of the parameters and tokens, or of the one of them that varies; None for too few runs."""
    names = tuple(n for n in ("parameters", "tokens") if len({getattr(t, n) for t in trials}) > 1)
    law = fit_law([t.loss for t in trials], *([getattr(t, n) for t in trials] for n in names)) if names else None
    return TrialLaw(law, names) if law else None


def fit_panel(along: Sequence[SizedRun], name: str) -> LogLogLine | None:
    """Return the straight line through the trials of a panel; None for fewer than three sizes."""
    return fit_line([t.loss for t in along], [getattr(t, name) for t in along])


def frontier(trials: Sequence[SizedRun]) -> list[tuple[float, float]]:
    """Return the lower envelope of the validation curves: the least loss by the operations, a point a bin of them.

    It begins with the operations of the cheapest whole run: before them no run has done what it was made for. Points
    within a run come before its rate has fallen, and so lie above what a run of just that length would reach.
    """
    begin = min((t.flop for t in trials), default=0)
    bins: dict[int, tuple[float, float]] = {}
    least = math.inf
    for flop, loss in sorted(point for t in trials for point in t.curve):
        i = math.floor(BINS * math.log10(flop))
        if flop >= begin * 0.999 and (loss < least or i not in bins):
            bins[i] = flop, min(loss, least)
        least = min(least, loss)
    return [bins[i] for i in sorted(bins)]


def follows(trials: Sequence[SizedRun], fitted: TrialLaw | None, name: str) -> Claim:
    """Return whether the test loss falls along a quantity, by more than noise, and as the law says."""
    text, along = f"The test loss is a power law of {WORDS[name]}.", panel_trials(trials, name)
    line = fit_panel(along, name)
    if fitted is None or line is None or name not in fitted.names:
        return judge(text, None, f"It takes three sizes of it, and more runs than the law has values ({len(trials)}).")
    other = {"parameters": "tokens", "tokens": "parameters"}[name]
    where = f"over {len({getattr(t, name) for t in along})} values, {_range(along, name)}"
    grid = f"fitted to all {len(trials)} runs" + (f", {_range(trials, other)} {other}" if len(fitted.names) > 1 else "")
    evidence = f"{_told(fitted.law, fitted.names.index(name))} {grid}; {where}, {_straight(line)}."
    return judge(text, line.high < 0 and fitted.law.log_rms <= LEFT, evidence[0].upper() + evidence[1:])


def follows_compute(points: Sequence[tuple[float, float]]) -> Claim:
    """Return whether the least loss falls with the compute, and as a law says."""
    text = "The least validation loss is a power law of the compute."
    compute, losses = [c for c, _ in points], [loss for _, loss in points]
    law, line = fit_law(losses, compute), fit_line(losses, compute)
    if law is None or line is None:
        return judge(text, None, f"It takes four points of the frontier; there are {len(points)}.")
    evidence = (
        f"{_told(law)} fitted to {len(points)} points of the frontier, {compute[0]:.2g} to {compute[-1]:.2g} FLOP "
        f"(as if they were independent, which points of one run are not); {_straight(line)}."
    )
    return judge(text, line.high < 0 and law.log_rms <= LEFT, evidence[0].upper() + evidence[1:])


def predicts_larger(trials: Sequence[SizedRun], fitted: TrialLaw | None, larger: Sequence[SizedRun]) -> Claim:
    """Return whether every held-out run lies within its interval.

    An interval that holds the loss of the largest model of the fit too says nothing, and decides nothing.
    """
    text = "The run ten times larger lies within the interval that the law predicts."
    if fitted is None or not larger:
        return judge(text, None, "It takes a law, and a run of at least five times the parameters of all others.")
    best = min(t.loss for t in trials)
    scores, within, telling = [], [], []
    for trial in larger:
        middle, (low, high) = float(fitted.law.loss(*fitted.sizes(trial))), fitted.law.interval(*fitted.sizes(trial))
        within.append(low <= trial.loss <= high)
        telling.append(high < best)
        scores.append(f"{trial.loss:.4f}, predicted {middle:.4f} (95 % interval {low:.4f} to {high:.4f})")
    biggest = max(trials, key=lambda t: t.flop)
    evidence = (
        f"Test loss {'; '.join(scores)}; Student's t, {fitted.law.freedom} degrees of freedom. It has "
        f"{larger[0].parameters:,.0f} parameters, {larger[0].parameters / biggest.parameters:.1f} times those of the "
        f"largest model of the fit, and took {larger[0].flop:.2g} FLOP, {larger[0].flop / biggest.flop:.1f} times as "
        f"many; the best test loss of the fit is {best:.4f}.{_by_the_line(trials, larger[0])}"
    )
    return judge(text, all(within) if all(telling) or not all(within) else None, evidence)


def _by_the_line(trials: Sequence[SizedRun], trial: SizedRun) -> str:
    """Return what the straight line through the models trained on the same text says of a larger one."""
    along = panel_trials(trials, "parameters")
    line = fit_panel(along, "parameters")
    if line is None or along[0].tokens != trial.tokens:
        return ""
    low, high = line.interval(trial.parameters)
    return (
        f" The straight line through the {len(along)} runs on the whole text says {line.loss(trial.parameters):.4f} "
        f"({low:.4f} to {high:.4f})."
    )


def slopes(line: LogLogLine) -> str:
    """Return a line's exponent with its interval."""
    return f"{-line.slope:.3f} ({-line.high:.3f} to {-line.low:.3f})"


def exponents(law: Law, i: int = 0) -> str:
    """Return an exponent with its interval.

    >>> exponents(fit_law([1 + 4 / n**0.5 for n in (1, 4, 16, 64, 256)], [1, 4, 16, 64, 256]))
    '0.500 (95 %: 0.500 to 0.500)'
    """
    low, high = law.exponent_interval(i)
    return f"{law.exponent(i):.3f} (95 %: {low:.3f} to {high:.3f})"


def _told(law: Law, i: int = 0) -> str:
    return (
        f"exponent {exponents(law, i)}, floor {law.floor:.3f}, {100 * law.log_rms:.1f} % of the losses "
        f"left (root mean square; at most {100 * LEFT:.0f} %),"
    )


def _straight(line: LogLogLine) -> str:
    return f"a straight line, without a floor, has the exponent {slopes(line)} and leaves {100 * line.log_rms:.1f} %"


def _range(trials: Sequence[SizedRun], name: str) -> str:
    values = [getattr(t, name) for t in trials]
    return f"{min(values):,.0f} to {max(values):,.0f}"


def _trial(result: Result) -> SizedRun | None:
    """Return what the study reads of a run; None for one without a test loss or a count of operations."""
    summary, loss = result.summary, result.metrics.get("test/loss")
    flop, steps = summary.get("flop_per_step"), summary.get("steps")
    tokens = result.value("dataset.train_size") or _all_tokens(result)
    if loss is None or not math.isfinite(loss) or not flop or not steps or not tokens:
        return None
    curve = tuple((float(flop) * step, value) for step, value in result.curves().get("val/loss", []) if step)
    return SizedRun(float(summary["parameters"]), float(tokens), float(flop) * steps, loss, curve)


def _all_tokens(result: Result) -> float | None:
    windows, length = (result.summary.get("data") or {}).get("train"), result.value("dataset.stride")
    length = length or result.value("dataset.context")
    return windows * length if windows and length else None
