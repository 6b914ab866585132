"""`dlrun report`: a sweep's report, written anew from its runs."""

from __future__ import annotations

import webbrowser
from contextlib import suppress

from dlrun.errors import UserError
from dlrun.report.terminal_text import terminal_text
from dlrun.report.write import write
from dlrun.storage.lookup import all_sweeps, find_sweep, locate, outputs
from dlrun.storage.read_counts import note_reads
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun report",
        description="Write a sweep's report from its runs: report.html, report.md, runs.csv and figures/ in its folder "
        "`report`. It covers the jobs that have finished so far.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="the sweep's folder, or the beginning of its id")
    parser.add_argument(
        "--select",
        action="store_true",
        help="select and test a configuration now, though jobs are missing or killed; the report says so",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --select: another one, though the test split was read for the first; the report says so",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)
    if options.force and not options.select:
        raise UserError("--force belongs to --select: type `dlrun report SWEEP --select --force`.")
    sweep = find_sweep(options.sweep)
    if sweep is None:
        raise UserError(_unknown(options.sweep))
    code = 0
    if options.select:
        # imports torch, which a report alone does not need
        from dlrun.sweeps.hydra_task import select

        code = select(sweep, again=options.force)
    else:
        note_reads(sweep)
        write(sweep)
        output.say(terminal_text(sweep))
    if options.open:
        webbrowser.open((sweep.report / "report.html").as_uri())
    return code


def _unknown(given: str) -> str:
    with suppress(UserError):
        run = locate(given)
        return f"`{given}` is a run, and a report is of a sweep. Type `dlrun ui {run.id}` to look at it."
    newest = all_sweeps()[-5:]
    listed = "".join(f"\n  {sweep.id}  {sweep.status()}  {sweep.path}" for sweep in newest)
    return (
        f"No sweep `{given}`: it is neither a sweep's folder nor the beginning of a sweep's id under {outputs()}."
        + (f"\nThe newest sweeps are:{listed}" if listed else "\nThere is no sweep yet: `dlrun train -m …` makes one.")
    )
