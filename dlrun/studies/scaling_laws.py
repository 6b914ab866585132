"""Scaling laws: the test loss is a power law of compute, data and parameters (Kaplan et al. 2020; book 3.7).

The sweep is a grid of models and training texts; every run takes the same number of steps. One law of both,
L(N, D) = E + A/N^α + B/D^β (`power_law`), is fitted to the test losses. A run with ten times the parameters is
held out: the law predicts its loss, and a claim compares. The straight line through a panel, Kaplan's law without
a floor, is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlrun.storage.results import Result
from dlrun.studies.scaling.fit import (
    SizedRun,
    SizeLaw,
    fit_size_law,
    fit_size_line,
    format_exponent,
    format_slope,
    frontier,
    panel_runs,
    split_held_out,
)
from dlrun.studies.scaling.panels import draw_grid, draw_panels
from dlrun.studies.scaling.power_law import LogLogLine, PowerLaw, fit_law, fit_line
from dlrun.studies.study import CaptionedFigure, Claim, judge

__all__ = ["ScalingLaws"]

MAX_RESIDUAL = 0.03  # root mean square of log L around an accepted law: 3 % of the losses
PHRASES = {"parameters": "the number of parameters", "tokens": "the size of the training text"}


@dataclass(frozen=True)
class ScalingLaws:
    """Power laws in parameters, tokens and compute, and a prediction."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        runs, larger = split_held_out(read_runs(results))
        fitted = fit_size_law(runs)
        return [
            follows(runs, fitted, "parameters"),
            follows(runs, fitted, "tokens"),
            follows_compute(frontier(runs), [r.curve[-1] for r in panel_runs(runs, "parameters") if r.curve]),
            predicts_larger(runs, fitted, larger),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        runs, larger = split_held_out(read_runs(results))
        if not runs:
            return
        caption = (
            "Loss against compute, size of the training text and parameters, both axes logarithmic. Dots: the runs "
            "with the most of the other quantity. Line: a straight line through them, dashed beyond them; its exponent "
            "is given with the 95 % interval. Dotted: the one law fitted to all runs. Star: the run held out, beside "
            "the 95 % intervals that the line (solid) and the law (dotted) predict. Compute: the validation curves of "
            "the runs (grey), and the law of their lower envelope."
        )
        yield CaptionedFigure("scaling_laws", draw_panels(runs, larger), caption)
        fitted = fit_size_law(runs)
        if fitted and len(fitted.names) == 2:
            caption = (
                "Test loss of every run against its parameters. Each line is the one law of both quantities, for one "
                "size of the training text."
            )
            yield CaptionedFigure("grid", draw_grid(runs, larger, fitted), caption)


def read_runs(results: Sequence[Result]) -> list[SizedRun]:
    """The runs with a test loss, the smallest first."""
    return sorted((r for r in map(_read_run, results) if r is not None), key=lambda r: (r.parameters, r.tokens))


def follows(runs: Sequence[SizedRun], fitted: SizeLaw | None, name: str) -> Claim:
    """Held if a law that fits falls along `name`.

    It fits if its residual is at most `MAX_RESIDUAL`. It falls if the 95 % interval of the line's slope is negative.
    """
    text, along = f"The test loss is a power law of {PHRASES[name]}.", panel_runs(runs, name)
    line = fit_size_line(along, name)
    if fitted is None or line is None or name not in fitted.names:
        return judge(text, None, f"It takes three sizes of it, and more runs than the law has values ({len(runs)}).")
    other = {"parameters": "tokens", "tokens": "parameters"}[name]
    where = f"over {len({getattr(r, name) for r in along})} values, {_range(along, name)}"
    grid = f"fitted to all {len(runs)} runs" + (f", {_range(runs, other)} {other}" if len(fitted.names) > 1 else "")
    evidence = f"{_describe_law(fitted.law, fitted.names.index(name))} {grid}; {where}, {_describe_line(line)}."
    return judge(text, line.high < 0 and fitted.law.log_rms <= MAX_RESIDUAL, evidence)


def follows_compute(points: Sequence[tuple[float, float]], whole: Sequence[tuple[float, float]]) -> Claim:
    """Held if a law fits the frontier, and whole runs fall with their compute.

    A frontier falls by construction, of losses that only fluctuate too. So the last losses of `whole` runs, (FLOP,
    loss), have to fall significantly along their compute.
    """
    text = "The least validation loss is a power law of the compute."
    compute, losses = [c for c, _ in points], [loss for _, loss in points]
    law, line = fit_law(losses, compute), fit_line(losses, compute)
    if law is None or line is None:
        return judge(text, None, f"It takes four points of the frontier; there are {len(points)}.")
    evidence = (
        f"{_describe_law(law)} fitted to {len(points)} points of the frontier, {compute[0]:.2g} to {compute[-1]:.2g} "
        f"FLOP (as if they were independent, which points of one run are not); {_describe_line(line)}."
    )
    runs = fit_line([loss for _, loss in whole], [flop for flop, _ in whole])
    if runs is None:
        return judge(text, None, f"{evidence} It takes three whole runs of different compute.")
    evidence += f" The last losses of whole runs alone have the exponent {format_slope(runs)}."
    return judge(text, line.high < 0 and runs.high < 0 and law.log_rms <= MAX_RESIDUAL, evidence)


def predicts_larger(runs: Sequence[SizedRun], fitted: SizeLaw | None, larger: Sequence[SizedRun]) -> Claim:
    """Held if every held-out run lies within its predicted interval.

    Undecided if an interval contains the best loss of the fit too: it would not tell progress from none.
    """
    text = "The run ten times larger lies within the interval that the law predicts."
    if fitted is None or not larger:
        return judge(text, None, "It takes a law, and a run of at least five times the parameters of all others.")
    best = min(r.loss for r in runs)
    scores, within, telling = [], [], []
    for run in larger:
        sizes = fitted.sizes(run)
        middle, (low, high) = float(fitted.law.loss(*sizes)), fitted.law.interval(*sizes)
        within.append(low <= run.loss <= high)
        telling.append(high < best)  # the prediction is better than any run of the fit
        scores.append(f"{run.loss:.4f}, predicted {middle:.4f} (95 % interval {low:.4f} to {high:.4f})")
    biggest = max(runs, key=lambda r: r.flop)
    evidence = (
        f"Test loss {'; '.join(scores)}; Student's t, {fitted.law.freedom} degrees of freedom. It has "
        f"{larger[0].parameters:,.0f} parameters, {larger[0].parameters / biggest.parameters:.1f} times those of the "
        f"largest model of the fit, and took {larger[0].flop:.2g} FLOP, {larger[0].flop / biggest.flop:.1f} times as "
        f"many. The best test loss of the fit is {best:.4f}.{_line_prediction(runs, larger[0])}"
    )
    return judge(text, all(within) if all(telling) or not all(within) else None, evidence)


def _line_prediction(runs: Sequence[SizedRun], larger: SizedRun) -> str:
    """The straight line's prediction for a larger run."""
    along = panel_runs(runs, "parameters")
    line = fit_size_line(along, "parameters")
    if line is None or along[0].tokens != larger.tokens:
        return ""  # it saw another training text
    low, high = line.interval(larger.parameters)
    return (
        f" The straight line through the {len(along)} runs on the whole text predicts "
        f"{line.loss(larger.parameters):.4f} ({low:.4f} to {high:.4f})."
    )


def _describe_law(law: PowerLaw, i: int = 0) -> str:
    return (
        f"Exponent {format_exponent(law, i)}, floor {law.floor:.3f}, residual {100 * law.log_rms:.1f} % of the losses "
        f"(root mean square; at most {100 * MAX_RESIDUAL:.0f} % allowed),"
    )


def _describe_line(line: LogLogLine) -> str:
    return (
        f"a straight line, without a floor, has the exponent {format_slope(line)} and leaves {100 * line.log_rms:.1f} %"
    )


def _range(runs: Sequence[SizedRun], name: str) -> str:
    values = [getattr(r, name) for r in runs]
    return f"{min(values):,.0f} to {max(values):,.0f}"


def _read_run(result: Result) -> SizedRun | None:
    summary, loss = result.summary, result.metrics.get("test/loss")
    flop, steps = summary.flop_per_step, summary.steps
    tokens = result.value("dataset.train_size") or _all_tokens(result)
    # a run without one of these has no place in the laws
    if loss is None or not math.isfinite(loss) or not flop or not steps or not tokens:
        return None
    # what was computed, the smaller last batch of each epoch included; older runs count it as a full one
    whole = summary.cost.get("flop") or float(flop) * steps
    # step 0 has no place on a logarithmic axis
    curve = tuple((whole / steps * step, value) for step, value in result.curves().get("val/loss", []) if step)
    return SizedRun(float(summary.parameters or 0), float(tokens), whole, loss, curve)


def _all_tokens(result: Result) -> float | None:
    # without `train_size` a run trains on its whole text: windows · stride
    windows, length = result.summary.data.get("train"), result.value("dataset.stride")
    # without a stride, windows lie a context apart
    length = length or result.value("dataset.context")
    return windows * length if windows and length else None
