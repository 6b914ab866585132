"""`make bench`: run the benchmarks and write `benchmarks/RESULTS.md`.

Without names, the short ones. A section is written as soon as it is measured; sections of scripts that do not run
stay. The last, `targets`, measures nothing: it compares the others' numbers with the goals.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.report import Section

# some minutes each; `processes` leaves out trainers that are not installed
SHORT = ("step", "stacked", "language", "startup", "processes", "exactness", "checkpoints", "ranks", "targets")
# by duration: sweeps half an hour, frameworks forty minutes, the last two most of an hour
LONG = ("gpu", "noncausal", "kill", "growth", "sweeps", "frameworks", "tracking", "mnist_error")
SCRIPTS = (*SHORT[:-1], *LONG, SHORT[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "scripts", nargs="*", metavar="SCRIPT", help=f"any of {', '.join(SCRIPTS)} (default: {', '.join(SHORT)})"
    )
    parser.add_argument("--all", action="store_true", help="every script")
    parser.add_argument("--quick", action="store_true", help="the smallest forms, as a check that they work")
    parser.add_argument("--output", type=Path, help=f"the file to write ({report.RESULTS.name}; quick: none)")
    options = parser.parse_args()
    unknown = [name for name in options.scripts if name not in SCRIPTS]
    if unknown:
        parser.error(f"No script is called `{unknown[0]}`. Valid: {', '.join(SCRIPTS)}.")
    output = options.output or (None if options.quick else report.RESULTS)
    for name in options.scripts or (SCRIPTS if options.all else SHORT):
        print(f"{name} …", file=sys.stderr, flush=True)
        section: Section = import_module(f"benchmarks.{name}").measure(quick=options.quick)
        print(section.markdown(), flush=True)
        if output and section.figures:  # nothing measured, e.g. without a GPU: keep the old section
            report.write(section, output)


if __name__ == "__main__":
    main()
