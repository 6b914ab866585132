"""`dlrun runs`: list, filter, sort and delete runs and sweeps."""

from __future__ import annotations

import argparse
from itertools import chain

from dlrun.commands.runs import sweeps
from dlrun.commands.runs.conditions import fulfils, parse, tell_units
from dlrun.commands.runs.cost_figure import draw_cost
from dlrun.commands.runs.deletion import delete_runs, delete_sweeps
from dlrun.commands.runs.order import higher_is_better, ranking_metric, sort_by
from dlrun.commands.runs.rows import as_table, row_of
from dlrun.errors import UserError
from dlrun.storage.files.json_text import dumps
from dlrun.storage.lookup import all_runs, all_sweeps, locate, locate_sweep, outputs, read_each
from dlrun.storage.overlap import describe_known, mark
from dlrun.storage.summary import Summary
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.last is not None and arguments.last < 1:
        raise UserError(f"--last {arguments.last}: expected at least 1.")
    named = {reference: locate_sweep(reference) for reference in arguments.runs}
    if arguments.sweeps:  # of the references, only those to sweeps
        return sweeps.show([s for s in named.values() if s] if named else all_sweeps(), as_json=arguments.json)
    narrowing = [f"--{name}" for name in ("where", "last", "sort") if getattr(arguments, name)]
    if arguments.delete and any(named.values()):
        if narrowing:  # a sweep is deleted whole
            raise UserError(
                f"{narrowing[0]} chooses among runs, and `{next(filter(named.get, named))}` is a sweep. Name runs."
            )
        return delete_sweeps(named, sure=arguments.yes)
    conditions = [parse(text) for text in arguments.where]
    found = [
        sweeps.runs_of(sweep) if sweep else [locate(reference, what="run or sweep")]
        for reference, sweep in named.items()
    ]
    # one that is named must be whole
    rows = [*map(row_of, chain(*found))] if named else [row for _, row in read_each(all_runs(), row_of)]
    for condition in conditions:
        tell_units(rows, condition)
        rows = [row for row in rows if fulfils(row, condition, rows)]
    if arguments.last is not None:  # before sorting: the newest
        rows = rows[-arguments.last :]
    if arguments.sort == "best" and rows:
        name = ranking_metric(rows, arguments.metric)
        rows = sort_by(rows, name, descending=higher_is_better(rows, name))
    elif arguments.sort and rows:
        rows = sort_by(rows, arguments.sort, descending=arguments.descending)
    if arguments.delete:
        return delete_runs(rows, sure=arguments.yes)
    if arguments.figure:
        return draw_cost(rows, arguments.figure)
    if arguments.json:
        print(dumps([{k: v for k, v in row.items() if k != "run"} for row in rows], indent=2))
    elif rows:
        output.say(as_table(rows, arguments.metric))
        for row in rows:
            # beside the others its numbers look better than they are
            if describe_known(Summary(row).origin):
                output.say(f"  {row['id']}: {mark(Summary(row).origin)}")
    else:
        # nothing was asked for: an empty folder, or another than the one that is meant
        which = "such run" if named or narrowing else "run"
        output.say(f"No {which} under {outputs()}. DLRUN_OUTPUTS names another folder of runs.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="dlrun runs", description="List the runs, oldest first; filter, sort or delete them.")
    parser.add_argument("runs", metavar="RUN|SWEEP", nargs="*", help="only these: folders, or the beginnings of ids")
    parser.add_argument("--sweeps", action="store_true", help="list the sweeps instead")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only runs that fulfil it: status=killed, name=mnist, 'test/error<0.01'; may be repeated",
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        help="by a metric or column, the smallest first; `best`: by --metric, the best first",
    )
    parser.add_argument("--descending", action="store_true", help="with --sort: the largest first")
    parser.add_argument("--last", metavar="N", type=int, help="only the newest N")
    parser.add_argument("--metric", action="append", help="show this metric in a column; may be repeated")
    parser.add_argument(
        "--figure", metavar="FILE", help="draw their training FLOP among published models, .png or .svg"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--delete", action="store_true", help="delete them, also from the trackers, after a question")
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    return parser
