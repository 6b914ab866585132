"""`dlrun test`: evaluate a run's selected weights again; each read of the test split is counted."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dlrun import console, device, tracking
from dlrun.errors import UserError
from dlrun.journal import Journal
from dlrun.reload import rebuild, select
from dlrun.run import evaluated, read_test
from dlrun.rundir import find


def main(argv: list[str]) -> int:
    """Evaluate the run that `argv` names, and print its metrics."""
    parser = argparse.ArgumentParser(
        prog="dlrun test", description="Evaluate a run's selected weights. A read of the test split is counted."
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or the beginning of its id")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--batch-size", type=int, help="samples at a time (no number depends on it)")
    parser.add_argument("--force", action="store_true", help="read the test split of a job of a sweep")
    arguments = parser.parse_args(argv)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: give at least 1.")
    folder = find(arguments.run)
    if folder.of_a_sweep and arguments.split == "test" and not arguments.force:
        raise UserError(
            f"{folder.id} is a job of a sweep, and was not selected: its test split is sealed.\n"
            f"«--split validation» shows what a choice may be made by; --force reads the test split all the same."
        )
    built = rebuild(folder)
    if arguments.batch_size:
        built = replace(built, training=replace(built.training, evaluation_batch_size=arguments.batch_size))
    if getattr(built.data, arguments.split) is None:
        raise UserError(f"{built.data.name} has no {arguments.split} split in this run.")
    step = select(built, folder)
    device.apply(built.execution)
    if arguments.split == "test":
        journal = Journal(folder.journal)
        try:
            metrics = read_test(built, folder, journal)[0]
        finally:
            journal.close()
        folder.update(lambda summary: summary.setdefault("metrics", {}).update(metrics))
    else:
        metrics = evaluated(built, arguments.split)
    console.say(f"{folder.path.name}  weights of step {step}")
    console.say(console.table([[name, console.number(value)] for name, value in metrics.items()]))
    if arguments.split == "test":
        console.say(f"  reads of the test split so far: {folder.summary()['test_reads']}")
        if built.tracking.enabled:
            tracking.start(folder)
    return 0
