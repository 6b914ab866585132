"""`dlrun report`: a sweep's report, written anew from its runs."""

from __future__ import annotations

import argparse
import webbrowser

from dlrun.errors import UserError
from dlrun.report.terminal_text import terminal_text
from dlrun.report.write import write
from dlrun.storage.lookup import all_sweeps, find_sweep, outputs
from dlrun.terminal import output


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dlrun report",
        description="Write a sweep's report from its runs: report.html, report.md, runs.csv and figures/ in its folder "
        "`report`. It covers the jobs that have finished so far.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="the sweep's folder, or the beginning of its id")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)
    sweep = find_sweep(options.sweep)
    if sweep is None:
        raise UserError(_unknown(options.sweep))
    page = write(sweep)
    output.say(terminal_text(sweep))
    if options.open:
        webbrowser.open(page.as_uri())
    return 0


def _unknown(given: str) -> str:
    newest = all_sweeps()[-5:]
    listed = "".join(f"\n  {sweep.id}  {sweep.status()}  {sweep.path}" for sweep in newest)
    return (
        f"No sweep `{given}`: it is neither a sweep's folder nor the beginning of a sweep's id under {outputs()}."
        + (f"\nThe newest sweeps are:{listed}" if listed else "\nThere is no sweep yet: `dlrun train -m …` makes one.")
    )
