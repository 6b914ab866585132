"""`dlrun runs`: list, filter, sort and delete runs and sweeps."""

from __future__ import annotations

import argparse
import operator
import re
import sys
from itertools import chain
from math import isnan
from typing import Any

from dlrun.errors import UserError, did_you_mean
from dlrun.storage import journal
from dlrun.storage.files.json_text import dumps
from dlrun.storage.lookup import all_runs, all_sweeps, locate, locate_sweep, outputs, read_each
from dlrun.storage.overlap import describe_known, mark
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import listing
from dlrun.sweeps.cost_figure import draw_cost
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import amount, counted, minute, number, table

# the longer signs first: `<` would match the beginning of `<=`
CONDITION = re.compile(r"([\w./]+)\s*(<=|>=|!=|=|<|>)\s*(.+)")
COMPARE = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
Condition = tuple[str, str, str]
"""A column or metric, a comparison, and a value."""
# valid in --where and --sort, even if no run has come to them
COLUMNS = ("id", "started", "name", "status", "seed", "steps", "train_seconds", "size")


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.last is not None and arguments.last < 1:
        raise UserError(f"--last {arguments.last}: expected at least 1.")
    named = {reference: locate_sweep(reference) for reference in arguments.runs}
    if arguments.sweeps:  # of the references, only those to sweeps
        return listing.show([s for s in named.values() if s] if named else all_sweeps(), as_json=arguments.json)
    narrowing = [f"--{name}" for name in ("where", "last", "sort") if getattr(arguments, name)]
    if arguments.delete and any(named.values()):
        if narrowing:  # a sweep is deleted whole
            raise UserError(
                f"{narrowing[0]} chooses among runs, and `{next(filter(named.get, named))}` is a sweep. Name runs."
            )
        return _delete_sweeps(named, sure=arguments.yes)
    conditions = [_condition(text) for text in arguments.where]
    found = [
        listing.runs_of(sweep) if sweep else [locate(reference, what="run or sweep")]
        for reference, sweep in named.items()
    ]
    # one that is named must be whole
    rows = [*map(_row, chain(*found))] if named else [row for _, row in read_each(all_runs(), _row)]
    for condition in conditions:
        _tell_units(rows, condition)
        rows = [row for row in rows if _fulfils(row, condition, rows)]
    if arguments.last is not None:  # before sorting: the newest
        rows = rows[-arguments.last :]
    if arguments.sort == "best" and rows:
        name = _ranking_metric(rows, arguments.metric)
        rows = _sort(rows, name, descending=_higher_is_better(rows, name))
    elif arguments.sort and rows:
        rows = _sort(rows, arguments.sort, descending=arguments.descending)
    if arguments.delete:
        return _delete(rows, sure=arguments.yes)
    if arguments.figure:
        return draw_cost(rows, arguments.figure)
    if arguments.json:
        print(dumps([{k: v for k, v in row.items() if k != "run"} for row in rows], indent=2))
    elif rows:
        output.say(_table(rows, arguments.metric))
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


def _row(run: RunDir) -> dict[str, Any]:
    status = run.status()
    summary = run.summary()
    own = {"run": run, "id": run.id, "folder": str(run.path), "status": status, "size": listing.size_of(run)}
    if status in ("running", "killed") and summary.steps is None:
        # an ended run has its steps in the summary, a running or killed one in the journal alone
        own |= {"steps": journal.last_step(run.journal), "cost": journal.last_cost(run.journal)}
    return summary.to_dict() | own


def _value(row: dict[str, Any], name: str) -> Any:
    return row[name] if name in row else _measured(row).get(name)


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """The metrics, and the cost by the names that it has in the curves."""
    return {**(row.get("metrics") or {}), **{f"cost/{name}": value for name, value in (row.get("cost") or {}).items()}}


def _condition(text: str) -> Condition:
    match = CONDITION.fullmatch(text.strip())
    if not match:
        raise UserError(f"--where `{text}` is no condition. Type for example `--where status=finished`.")
    return match[1], match[2], match[3].strip()


def _fulfils(row: dict[str, Any], condition: Condition, rows: list[dict[str, Any]]) -> bool:
    name, sign, given = condition
    compare = COMPARE[sign]
    _check_name(name, rows)
    value = _value(row, name)
    if value is None:  # a run that has not come to it fulfils no condition, `!=` neither
        return False
    # numbers compare as numbers, all else as text
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return bool(compare(value, float(given)))
        except ValueError:
            raise UserError(f"--where `{name}{sign}{given}`: {name} is a number, and `{given}` is not.") from None
    return bool(compare(str(value), given))


def _tell_units(rows: list[dict[str, Any]], condition: Condition) -> None:
    """Say it if a metric is not one quantity in all these runs."""
    name = condition[0]
    units = {Summary(row).unit(name) for row in rows if name in (row.get("metrics") or {})}
    if len(units) > 1:
        output.warn(f"--where {''.join(condition)}: {name} is not the same quantity in all these runs.")


def _sort(rows: list[dict[str, Any]], name: str, *, descending: bool) -> list[dict[str, Any]]:
    _check_name(name, rows)
    have = [row for row in rows if _value(row, name) is not None]
    if any(isinstance(_value(row, name), dict | list) for row in have):
        raise UserError(f"--sort {name}: it is neither a number nor text. Type for example `--sort val/loss`.")
    if len({isinstance(_value(row, name), str) for row in have}) > 1:
        raise UserError(f"--sort {name}: of some runs it is a number, of others text.")
    # runs without it come last, in either direction, and so do those where it is no number
    last = [row for row in rows if _value(row, name) is None or _is_nan(_value(row, name))]
    have = [row for row in have if not _is_nan(_value(row, name))]
    return sorted(have, key=lambda row: _value(row, name), reverse=descending) + last


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and isnan(value)


def _ranking_metric(rows: list[dict[str, Any]], given: list[str] | None) -> str:
    """The metric to rank runs by: the one given, else the one that selected the weights of all."""
    monitors = {row["selected_by"] for row in rows if row.get("selected_by")}
    names = given or sorted(monitors)
    if any(name.startswith("test/") for name in names):
        raise UserError(
            f"--sort best: what is best is not decided by the test split. Type for example --metric val/loss; "
            f"`--sort {names[0]}` sorts the numbers all the same."
        )
    if len(names) == 1:
        return names[0]
    found = f" They were selected by {', '.join(names)}." if names else ""
    raise UserError(f"--sort best: by which metric?{found} Add for example `--metric val/loss`.")


def _higher_is_better(rows: list[dict[str, Any]], name: str) -> bool:
    """Raises `UserError` if nobody says it, or if the values are not of one unit and the same samples."""
    summaries = [Summary(row) for row in rows if name in (row.get("metrics") or {})]
    known = {summary.higher_is_better(name) for summary in summaries}
    if len(known) != 1 or None in known:
        raise UserError(
            f"--sort best: nobody says whether higher or lower values of {name} are better. Type `--sort {name}`, and "
            f"perhaps `--descending`."
        )
    if len({summary.unit(name) for summary in summaries}) > 1 or len({s.samples(name) for s in summaries}) > 1:
        raise UserError(
            f"--sort best: {name} is not the same quantity in all these runs, or was measured on other samples. Name "
            f"runs that can be compared, or narrow them with --where; `--sort {name}` sorts the numbers all the same."
        )
    return bool(known.pop())


def _check_name(name: str, rows: list[dict[str, Any]]) -> None:
    names = {*COLUMNS, *(k for row in rows for k in (*row, *_measured(row)))} - {"run"}
    if rows and name not in names:  # without a run, every name would be unknown
        raise UserError(f"No run has `{name}`.{did_you_mean(name, names)}\nThere are: {', '.join(sorted(names))}.")


def _table(rows: list[dict[str, Any]], metrics: list[str] | None) -> str:
    if not metrics:  # the common ones that some run has
        present = {name for row in rows for name in (row.get("metrics") or {})}
        wanted = ("val/loss", "val/error", "val/mse", "test/error", "test/mse", "test/perplexity")
        metrics = [name for name in wanted if name in present]
    lines = [["run", "started", "name", "status", "seed", "steps", "train s", *metrics, "size"]]
    for row in rows:
        cells = [
            row["id"],
            minute(row.get("started")),
            row.get("name", ""),
            row["status"],
            row.get("seed"),
            _steps(row),
        ]
        cells += [row.get("train_seconds"), *(_value(row, name) for name in metrics)]
        shown = [number(c) if isinstance(c, float) else "" if c is None else str(c) for c in cells]
        lines.append([*shown, amount(row["size"], "B")])
    return table(lines, indent="")


def _steps(row: dict[str, Any]) -> str:
    """The steps so far; of a run that has not ended, also those that it is to take."""
    steps, horizon = row.get("steps"), row.get("horizon")
    if row["status"] in ("running", "killed") and horizon:
        return f"{steps or 0}/{horizon}"
    return "" if steps is None else str(steps)


def _delete(rows: list[dict[str, Any]], *, sure: bool) -> int:
    if not rows:
        output.say("No such run; nothing is deleted.")
        return 0
    alive = [row["folder"] for row in rows if row["run"].alive()]
    if alive:
        raise UserError(f"{alive[0]} is being trained. Stop it first.")
    output.say(_table(rows, None))
    size = amount(sum(row["size"] for row in rows), "B")
    if not (sure or _agree(f"{'this run' if len(rows) == 1 else f'these {len(rows)} runs'}, {size}")):
        return 0
    for row in rows:
        listing.remove(row["run"])
    output.say(f"Deleted {counted(len(rows), 'run')}, {size}.")
    return 0


def _delete_sweeps(named: dict[str, SweepDir | None], *, sure: bool) -> int:
    chosen = [sweep for sweep in named.values() if sweep is not None]
    if len(chosen) < len(named):
        runs = [reference for reference, sweep in named.items() if sweep is None]
        raise UserError(f"{', '.join(runs)}: delete runs and sweeps by two commands.")
    listing.show(chosen)
    size = amount(sum(map(listing.size_of, chosen)), "B")
    if sure or _agree(f"{'this sweep' if len(chosen) == 1 else 'these sweeps'}, {size}, with all runs"):
        listing.delete(chosen)
        output.say(f"Deleted {counted(len(chosen), 'sweep')}, {size}.")
    return 0


def _agree(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            "--delete asks a question, and there is no terminal to answer it. Add --yes to delete without it."
        )
    # a whole word: a y typed by habit deletes nothing
    agreed = input(f"Delete {what}, and what the trackers have of them? Type yes: ").strip() == "yes"
    if not agreed:
        output.say("Nothing is deleted.")
    return agreed
