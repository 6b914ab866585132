"""Tracking on against off: what MLflow costs the training that it shows, the uploader's imports included."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import commands, report
from benchmarks.alternation import alternate, ratios, spread
from benchmarks.report import Figure, Section

MNIST = ("+experiment=mnist", "dataset.validation_size=0", "trainer.threads=2")
DIGITS = ("+experiment=digits", "dataset.validation_size=0")
SIDE = ("evaluation.test=never", "trainer.figures=false")


def train_seconds(here: Path, *overrides: str) -> float:
    """Return the seconds that the loop of one run took."""
    run = commands.train(here, *overrides)
    # the uploader closes its store for a moment after its last word: the next run must not pay for it
    time.sleep(1.0)
    return float(run.summary()["train_seconds"])


def measure(*, quick: bool = False, repeats: int | None = None, epochs: int = 10) -> Section:
    """Return the ratio of `train_seconds` with tracking to those without."""
    load = report.load()
    what = (*DIGITS, "trainer.epochs=2") if quick else (*MNIST, f"trainer.epochs={epochs}")
    with commands.workplace() as here:
        programs = {
            "on": partial(train_seconds, here, *what, *SIDE),
            "off": partial(train_seconds, here, *what, *SIDE, "tracking.enabled=false"),
        }
        commands.train(here, "trainer.fast=true")  # makes the store
        taken = alternate(programs, repeats or (1 if quick else 5), warm_up=0)
    more = [100 * (ratio - 1) for ratio in ratios(taken["on"], taken["off"])]
    figures = [
        Figure("train_seconds, tracking off", spread(taken["off"], ".2f", "s")),
        Figure("train_seconds, tracking on", spread(taken["on"], ".2f", "s")),
        Figure("tracking costs", spread(more, "+.2f", "%"), "< 1 %", median(more) < 1),
    ]
    command = "python -m benchmarks.tracking" + (f" --epochs {epochs}" if epochs != 10 else "")
    notes = f"`dlrun train {' '.join(what)}`, with and without `tracking.enabled=false`."
    return Section("tracking", "tracking on against off", command, figures, notes, load)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two epochs of digits, to see that it works")
    parser.add_argument("--repeats", type=int, help="rounds (5)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of MNIST (10)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats, epochs=options.epochs).markdown())


if __name__ == "__main__":
    main()
