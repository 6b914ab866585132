"""A checkpoint's metrics for evaluation batches of 1, 7 and all samples: equal to the last printed digit."""

from __future__ import annotations

import argparse

from benchmarks import commands, report
from benchmarks.report import Figure, Section
from dlrun.engine.evaluation import evaluate
from dlrun.runs.reload.rebuild import rebuild, select
from dlrun.terminal.format import number


def measure(*, quick: bool = False) -> Section:
    load = report.load()
    short = ("trainer.fast=true",) if quick else ()
    with commands.workplace() as here:
        run = commands.train(here, "tracking.enabled=false", "trainer.figures=false", *short)
        built = rebuild(run)
        select(built, run)
    training = built.training
    printed = {}
    for split in ("train", "validation"):
        samples = getattr(built.data, split)
        for size in (1, 7, len(samples)):
            found = evaluate(training.objective, training.metrics, samples, batch_size=size, device=training.device)
            printed[split, "all" if size == len(samples) else size] = [number(found[name]) for name in sorted(found)]
    figures = [Figure(f"{split}, batches of {size}", ", ".join(text)) for (split, size), text in printed.items()]
    same = all(printed[split, 1] == printed[split, 7] == printed[split, "all"] for split in ("train", "validation"))
    figures.append(Figure("equal as printed", "yes" if same else "no", "yes", same))
    return Section(
        "exactness",
        "metrics for evaluation batches of 1, 7 and all",
        "python -m benchmarks.exactness",
        figures,
        "A bare `dlrun train` (digits); accuracy, error and loss at the selected weights.",
        load,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two steps, as a check that it works")
    print(measure(quick=parser.parse_args().quick).markdown())


if __name__ == "__main__":
    main()
