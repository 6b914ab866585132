"""The test error of the slides' program, `dlrun train +experiment=mnist dataset.validation_size=0`, on three seeds."""

from __future__ import annotations

import argparse
from statistics import median

from benchmarks import commands, report
from benchmarks.report import Figure, Section

OVERRIDES = ("+experiment=mnist", "dataset.validation_size=0")
SIDE = ("tracking.enabled=false", "trainer.figures=false")


def measure(*, quick: bool = False, seeds: int | None = None) -> Section:
    load, figures, errors = report.load(), [], []
    with commands.workplace() as here:
        for seed in range(seeds or (1 if quick else 3)):
            what = ("+experiment=digits", "trainer.epochs=2") if quick else OVERRIDES
            summary = commands.train(here, *what, *SIDE, f"seed={seed}").summary()
            errors.append(100 * summary.metrics["test/error"])
            figures.append(
                Figure(f"seed {seed}: test error", f"{errors[-1]:.2f} % in {summary.train_seconds or 0.0:.0f} s")
            )
    middle = median(errors)
    figures.append(Figure("median test error", f"{middle:.2f} %", "≤ 0.95 %", round(middle, 4) <= 0.95))
    notes = (
        f"`dlrun train {' '.join(OVERRIDES)} seed=…`: 10 epochs. The slides: worst 1.3 %, median 1.0 %, best 0.82 %."
    )
    return Section("mnist_error", "MNIST's test error", "python -m benchmarks.mnist_error", figures, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mnist_error", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits instead, as a check that it works")
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0 (3)")
    options = parser.parse_args()
    print(measure(quick=options.quick, seeds=options.seeds).markdown())


if __name__ == "__main__":
    main()
