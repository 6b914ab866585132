"""`dlrun runs`: list, filter, sort and delete runs and sweeps."""

from __future__ import annotations

import argparse

from dlrun.commands.runs import sweeps
from dlrun.commands.runs.cost_figure import draw_cost
from dlrun.commands.runs.deletion import delete_runs, delete_sweeps
from dlrun.commands.runs.query import Query, select
from dlrun.commands.runs.rows import as_table
from dlrun.errors import UserError
from dlrun.storage.files.json_text import dumps
from dlrun.storage.lookup import all_sweeps, locate_sweep, outputs
from dlrun.storage.overlap import describe_known, mark
from dlrun.storage.summary import Summary
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    named = {reference: locate_sweep(reference) for reference in arguments.runs}
    query = Query(arguments.where, arguments.last, arguments.sort, arguments.descending, arguments.metric or ())
    if arguments.sweeps:  # of the references, only those to sweeps
        return sweeps.show([s for s in named.values() if s] if named else all_sweeps(), as_json=arguments.json)
    if arguments.delete and any(named.values()):
        if query.narrowing:  # a sweep is deleted whole
            raise UserError(
                f"{query.narrowing[0]} chooses among runs, and `{next(filter(named.get, named))}` is a sweep. Name "
                "runs."
            )
        return delete_sweeps(named, sure=arguments.yes)
    rows = select(named, query)
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
        which = "such run" if named or query.narrowing else "run"
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
