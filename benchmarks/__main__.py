"""`make bench`: run the benchmarks and write `benchmarks/RESULTS.md`.

Without names those run that take minutes. Each script's section is written as soon as it is measured; sections of
scripts that were not run stay. The last, `targets`, measures nothing: it is the verdict over the others.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.report import Section

SHORT = ("step", "stacked", "language", "startup", "processes", "exactness", "targets")
"""Some minutes each; processes leaves out the trainers that are not installed."""
LONG = ("gpu", "noncausal", "kill", "sweeps", "frameworks", "tracking", "mnist_error")
"""In the order of how long they take: sweeps half an hour, frameworks forty minutes, the last two most of an hour."""
SCRIPTS = (*SHORT[:-1], *LONG, SHORT[-1])


def main() -> None:
    """Run the scripts that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)} ({', '.join(SHORT)})")
    parser.add_argument("--all", action="store_true", help="every script")
    parser.add_argument("--quick", action="store_true", help="the smallest forms, to see that they work")
    parser.add_argument("--output", type=Path, help=f"the file to write ({report.RESULTS.name}; quick: none)")
    options = parser.parse_args()
    unknown = [name for name in options.scripts if name not in SCRIPTS]
    if unknown:
        parser.error(f"there is no `{unknown[0]}`; give one or several of {', '.join(SCRIPTS)}")
    output = options.output or (None if options.quick else report.RESULTS)
    for name in options.scripts or (SCRIPTS if options.all else SHORT):
        print(f"{name} …", file=sys.stderr, flush=True)
        section: Section = import_module(f"benchmarks.{name}").measure(quick=options.quick)
        print(section.markdown(), flush=True)
        if output and section.figures:  # where nothing could be measured, what was before stays
            report.write(section, output)


if __name__ == "__main__":
    main()
