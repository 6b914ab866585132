"""`dlrun compare`: runs or sweeps against the first, seed by seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dlrun.analysis.statistics import Difference, describe_difference, interval_method, spread
from dlrun.errors import UserError
from dlrun.report.comparison import describe_sides, difference, direction, metric_of
from dlrun.report.sides import Side, sides
from dlrun.report.tables import format_mean, format_number
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import table


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    found = sides(options.sides)
    metric = metric_of(found, options.metric)
    higher = direction(found, metric, given=options.better)
    first, *others = found  # the first is the baseline
    differences = [difference(first, other, metric, higher_is_better=higher) for other in others]
    output.say(f"{metric}, {'higher' if higher else 'lower'} is better")
    output.say(_table(found, metric, higher))
    for other, differing in zip(others, differences, strict=True):
        told = describe_difference(differing, metric=metric, first=f"`{first.label}`", second=f"`{other.label}`")
        output.say(f"  {told}")
        output.say(f"  {describe_sides(first, other)}")
    for line in _remarks(found, differences, metric):
        output.say(f"  {line}")
    if options.figure:
        _draw(found, metric, Path(options.figure))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun compare",
        description="Compare runs or sweeps with the first of them: the mean difference over their common seeds, with "
        "its 95 % interval. A sweep stands for its selected group; a single sweep for all of its groups.",
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="RUN|SWEEP[:GROUP]",
        help="a folder, or the beginning of an id; behind a sweep perhaps a group: ID:lr=0.1,width=64",
    )
    parser.add_argument("--metric", help="val/loss, train/error, … (default: the one that selected the first)")
    parser.add_argument(
        "--better", choices=["higher", "lower"], help="which values of a metric of yours are better, if it does not say"
    )
    parser.add_argument(
        "--figure", metavar="FILE", help="draw the runs, with those of one seed joined, as .png or .svg"
    )
    return parser


def _table(found: Sequence[Side], metric: str, higher: bool) -> str:
    rows = [["", "seeds", "mean ± sd", "worst", "median", "best"]]
    for side in found:
        over = spread([*side.values(metric).values()], higher_is_better=higher)
        # a run that is not finite is worse than any number
        worst = "not finite" if over.broken else format_number(over.worst)
        rows.append(
            [
                side.label,
                str(over.n + over.broken),
                format_mean(over),
                worst,
                format_number(over.median),
                format_number(over.best),
            ]
        )
    return table(rows)


def _remarks(found: Sequence[Side], differences: Sequence[Difference], metric: str) -> list[str]:
    told = [f"`{side.label}`: {side.note}" for side in found if side.note]
    sizes = sorted({differing.n for differing in differences if differing.n > 1})
    if sizes:
        how = " and ".join(dict.fromkeys(interval_method(n) for n in sizes))
        told.append(f"Paired by seed; the interval is of the mean difference, by {how}.")
    if len(differences) > 2:  # no correction for many comparisons is made
        told.append(
            f"Each of the {len(differences)} intervals is for itself: one in twenty excludes zero by chance alone."
        )
    if metric.startswith("test/"):  # each look at it makes it a worse judge
        reads = sum(summary.test_reads for side in found for summary in side.summaries.values())
        runs = sum(len(side.runs) for side in found)
        told.append(f"These {runs} runs have read the test split {reads} times; select nothing by it.")
    return told


def _draw(found: Sequence[Side], metric: str, file: Path) -> None:
    from dlrun.analysis.figures.pairs import pairs
    from dlrun.analysis.figures.style import save

    if file.suffix not in (".png", ".svg"):
        raise UserError(f"--figure {file}: expected a file that ends with .png or .svg.")
    save(pairs([(side.label, side.values(metric)) for side in found], metric), file)
    output.say(f"  {file}")
