"""`dlrun report`: a sweep's report, written anew from its runs; the gallery of several sweeps."""

from __future__ import annotations

import webbrowser
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dlrun.errors import UserError
from dlrun.report.terminal_text import terminal_text
from dlrun.report.write import write
from dlrun.storage.lookup import all_sweeps, find_sweep, locate, outputs, read_each
from dlrun.storage.read_counts import note_reads
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import counted


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun report",
        description="Write a sweep's report from its runs: report.html, report.md, runs.csv and figures/ in its folder "
        "`report`. It covers the jobs that have finished so far.",
    )
    parser.add_argument("sweeps", metavar="SWEEP", nargs="*", help="the sweep's folder, or the beginning of its id")
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
    parser.add_argument(
        "--gallery",
        action="store_true",
        help="one page of several sweeps, outputs/gallery/index.html: command, figures and claims of each; without "
        "SWEEP, of the newest whole sweep of each study",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)
    if options.select and options.gallery:
        raise UserError("--select belongs to one sweep: type `dlrun report SWEEP --select`, then `--gallery`.")
    if options.force and not options.select:
        raise UserError("--force belongs to --select: type `dlrun report SWEEP --select --force`.")
    if options.gallery:
        page, code = _gallery(options.sweeps), 0
    else:
        page, code = _report(options)
    if options.open:
        webbrowser.open(page.as_uri())
    return code


def _report(options: Namespace) -> tuple[Path, int]:
    if len(options.sweeps) != 1:
        raise UserError(
            f"Expected one SWEEP, got {len(options.sweeps)}. Type "
            "`dlrun report SWEEP`, or `dlrun report --gallery [SWEEP…]` for one page of several."
        )
    sweep = _find(options.sweeps[0])
    code = 0
    if options.select:
        # imports torch, which a report alone does not need
        from dlrun.sweeps.hydra_task import select

        code = select(sweep, again=options.force)
    else:
        note_reads(sweep)
        write(sweep)
        output.say(terminal_text(sweep))
    return sweep.report / "report.html", code


def _gallery(references: Sequence[str]) -> Path:
    # imports what finds experiments, which a report does not need
    from dlrun.report.gallery.collect import newest_of_each_study, read_entry
    from dlrun.report.gallery.page import write_page

    sweeps = [*map(_find, references)] or newest_of_each_study()
    if not sweeps:
        raise UserError(
            f"There is no study under {outputs()} yet: `dlrun train +experiment=polynomial_capacity` is one. "
            "`dlrun report --gallery SWEEP…` takes other sweeps too."
        )
    # one that is named must be whole
    entries = [*map(read_entry, sweeps)] if references else [entry for _, entry in read_each(sweeps, read_entry)]
    page = outputs() / "gallery" / "index.html"
    write_page(entries, page)
    output.say(f"{counted(len(entries), 'sweep')}: {page}")
    return page


def _find(reference: str) -> SweepDir:
    sweep = find_sweep(reference)
    if sweep is None:
        raise UserError(_unknown(reference))
    return sweep


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
