"""`dlrun compare`: runs or sweeps against the first, seed by seed or fold by fold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dlrun.analysis.statistics import Difference, describe_difference, interval_method, spread
from dlrun.errors import UserError
from dlrun.report.comparison import chosen, compare, describe_sides, direction, group_count, metric_of, possible
from dlrun.report.figures import file_name
from dlrun.report.sentences import describe_chance, describe_folds
from dlrun.report.sides import Side, comparisons, repetition
from dlrun.report.tables import format_mean, format_number
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import counted, table


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    file = _figure_file(options.figure)
    found = comparisons(options.sides)
    for label, own in found.items():
        if label:
            output.say(f"{label}:")
        _compare(own, options, file.with_stem(f"{file.stem}-{file_name(label)}") if file and label else file)
    return 0


def _compare(found: Sequence[Side], options: argparse.Namespace, file: Path | None) -> None:
    metric = metric_of(found, options.metric)
    higher = direction(found, metric, given=options.better)
    differences = compare(found, metric, higher_is_better=higher)
    first, *others = found  # the first is the baseline
    output.say(f"{metric}, {'higher' if higher else 'lower'} is better")
    output.say(_table(found, metric, higher))
    for other, differing in zip(others, differences, strict=True):
        labels = {"first": f"`{first.label}`", "second": f"`{other.label}`"}
        told = describe_difference(differing, metric=metric, **labels, over=repetition(found))
        output.say(f"  {told}")
        output.say(f"  {describe_sides(first, other)}")
    for line in _remarks(found, differences, metric):
        output.say(f"  {line}")
    if file:
        _draw(found, metric, file)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun compare",
        description="Compare runs or sweeps with the first of them: mean differences over their common seeds or "
        "folds, with 95 % intervals that hold at once. A sweep stands for its selected group; a single sweep for all "
        "of its groups, in each data set.",
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
    rows = [["", f"{repetition(found)}s", "mean ± sd", "worst", "median", "best"]]
    for side in found:
        values = [*side.values(metric).values()]
        over = spread(values, higher_is_better=higher, possible=possible(found, metric))
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
    told += _intervals(found, sizes, metric)
    if metric.startswith("test/"):  # each look at it makes it a worse judge
        reads = sum(summary.test_reads for side in found for summary in side.summaries.values())
        runs = sum(len(side.runs) for side in found)
        told.append(f"These {runs} runs have read the test split {counted(reads, 'time')}; select nothing by it.")
    return told


def _intervals(found: Sequence[Side], sizes: Sequence[int], metric: str) -> list[str]:
    """What the intervals are of, and which chance they cover."""
    if not sizes:
        return []
    selected = chosen(found, metric)
    many = group_count(found, metric)
    if many <= 2:
        how = " and ".join(dict.fromkeys(interval_method(n) for n in sizes))
        told = [f"Paired by {repetition(found)}; the interval is of the mean difference, by {how}."]
    else:
        choice = f", and allow for the selection of {_listed(selected)}" if selected else ""
        told = [
            f"Paired by {repetition(found)}; the intervals are of the mean difference. They hold at once for all of "
            f"{many} groups{choice}: of groups that are alike, one in twenty comparisons calls any better or worse."
        ]
    of_folds = describe_folds(replicate for side in found for replicate in side.runs)
    return [*told, of_folds or describe_chance([one for side in found for one in side.summaries.values()], metric)]


def _listed(selected: Sequence[Side]) -> str:
    return " and ".join(f"`{side.label}`" for side in selected)


def _figure_file(given: str | None) -> Path | None:
    if given and Path(given).suffix not in (".png", ".svg"):
        raise UserError(f"--figure {given}: expected a file that ends with .png or .svg.")
    return Path(given) if given else None


def _draw(found: Sequence[Side], metric: str, file: Path) -> None:
    from dlrun.analysis.figures.pairs import pairs
    from dlrun.analysis.figures.style import save

    drawn = pairs([(side.label, side.values(metric)) for side in found], metric, possible=possible(found, metric))
    save(drawn, file)
    output.say(f"  {file}")
