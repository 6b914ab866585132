"""Tracking on against off: the cost of MLflow to the training that it shows, the uploader's imports included.

Beside the seconds of the loop, the Linux scheduler counts how long its threads were ready to run without a processor:
all that another process can take from them, independent of the machine's own speed.
"""

from __future__ import annotations

import argparse
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import commands, report
from benchmarks.alternation import added, alternate, ratios, spread
from benchmarks.report import Figure, Section
from dlrun.storage import journal
from dlrun.storage.rundir import RunDir

MNIST = ("+experiment=mnist", "dataset.validation_size=0", "trainer.threads=2")
DIGITS = ("+experiment=digits", "dataset.validation_size=0")
SIDE = ("evaluation.test=never", "trainer.figures=false")


class Taken(NamedTuple):
    """Seconds of a run's loop, and of them those in which one of its threads waited for a processor."""

    seconds: float
    waited: float


def train(here: Path, *overrides: str) -> Taken:
    process = commands.start(commands.dlrun("train", *overrides), here)
    samples: list[tuple[float, float]] = []
    watch = threading.Thread(target=_watch, args=(process.pid, samples))
    watch.start()
    output, _ = process.communicate()
    watch.join()
    run = commands.folder_in(output, here)
    # the uploader closes its store after its last message: the next run must not pay for that
    time.sleep(1.0)
    begin, end = _loop(run)
    return Taken(run.summary().train_seconds or 0.0, _at(samples, end) - _at(samples, begin))


def _watch(pid: int, samples: list[tuple[float, float]]) -> None:
    """Sample the waiting time of a process's threads until it ends."""
    waited: dict[str, int] = {}
    while True:
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            if not Path(f"/proc/{pid}/task").is_dir():
                return
        except IndexError:  # the process is a zombie
            return
        samples.append((time.time(), sum(waited.values()) / 1e9))
        time.sleep(0.2)


def _loop(run: RunDir) -> tuple[float, float]:
    """The begin and end of a run's loop."""
    times = [
        r["time"]
        for r in journal.read(run.journal)[0]
        if r.get("event") == "start" or "train/loss" in r.get("metrics", {})
    ]
    return times[0], times[-1]


def _at(samples: list[tuple[float, float]], moment: float) -> float:
    """The last sample before a moment; 0 without one, as on a system that does not count this."""
    return next((waited for when, waited in reversed(samples) if when <= moment), 0.0)


def measure(*, quick: bool = False, repeats: int | None = None, epochs: int = 10) -> Section:
    load = report.load()
    what = (*DIGITS, "trainer.epochs=2") if quick else (*MNIST, f"trainer.epochs={epochs}")
    with commands.workplace() as here:
        programs = {
            "on": partial(train, here, *what, *SIDE),
            "off": partial(train, here, *what, *SIDE, "tracking.enabled=false"),
        }
        commands.train(here, "trainer.fast=true")  # makes the store
        taken = alternate(programs, repeats or (1 if quick else 5), warm_up=0)
    on, off = ([t.seconds for t in taken[name]] for name in ("on", "off"))
    waiting = added(
        [100 * t.waited / t.seconds for t in taken["on"]], [100 * t.waited / t.seconds for t in taken["off"]]
    )
    figures = [
        Figure("train_seconds, tracking off", spread(off, ".2f", "s")),
        Figure("train_seconds, tracking on", spread(on, ".2f", "s")),
        Figure("… more with tracking", spread([100 * (ratio - 1) for ratio in ratios(on, off)], "+.2f", "%")),
        Figure("threads without a processor, tracking off", spread([t.waited for t in taken["off"]], ".2f", "s")),
        Figure("threads without a processor, tracking on", spread([t.waited for t in taken["on"]], ".2f", "s")),
        Figure("tracking costs: … more, of train_seconds", spread(waiting, "+.2f", "%"), "< 1 %", median(waiting) < 1),
    ]
    command = "python -m benchmarks.tracking" + (f" --epochs {epochs}" if epochs != 10 else "")
    notes = (
        f"`dlrun train {' '.join(what)}`, with and without `tracking.enabled=false`. The first difference holds the "
        "machine's moods too. The last is the scheduler's own count of what other processes took from its threads."
    )
    return Section("tracking", "tracking on against off", command, figures, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two epochs of digits, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (5)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of MNIST (10)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats, epochs=options.epochs).markdown())


if __name__ == "__main__":
    main()
