"""What grows with the number of runs: CPU seconds and memory of a check, a sweep, a list and a report; bytes a step.

Finished runs are not trained in thousands: the files of one small sweep are copied, with other ids.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import commands, report
from benchmarks.report import Figure, Section
from dlrun.storage import journal, manifest
from dlrun.storage.sweepdir import SweepDir

SIZES = (1_000, 10_000)
STACKED = ("train", "-m", "hydra/launcher=batched", "trainer.epochs=1")


@dataclass(frozen=True)
class Taken:
    """One command: wall and CPU seconds (user and system, of its processes that it waited for), and peak memory."""

    wall: float
    cpu: float
    memory: float  # MB

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s of CPU, {self.wall:.1f} s, {self.memory:.0f} MB"


def take(here: Path, *arguments: str) -> Taken:
    """Run a command of dlrun; raises `RuntimeError` with its output if it fails."""
    began = time.monotonic()
    with (here / "output").open("w") as output:
        process = commands.start(commands.dlrun(*arguments), here, output)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((here / "output").read_text())
    return Taken(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / _UNIT)


# kilobytes on Linux, bytes on macOS
_UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10


def copied(source: SweepDir, outputs: Path, jobs: int) -> Path:
    """A finished sweep of so many jobs, whose files are those of `source` with other numbers, seeds and identities."""
    folder = outputs / "sweeps" / "2026-01-01" / f"000000-copied-{jobs:08d}"
    folder.mkdir(parents=True)
    known = manifest.read(source)
    made = []
    for n in range(jobs):
        job = known.jobs[n % len(known.jobs)]
        own = {"seed": n, "identity": f"{n:064d}"}
        made.append(replace(job, n=n, overrides=(f"seed={n}",), config=job.config | {"seed": n}, identity=f"{n:064d}"))
        # links, for the space: only the summary is another
        shutil.copytree(source.job(job.n).path, folder / str(n), copy_function=os.link)
        summary = folder / str(n) / "summary.json"
        content = json.loads(summary.read_text()) | own
        summary.unlink()
        summary.write_text(json.dumps(content))
    replace(known, jobs=tuple(made)).write(SweepDir(folder))
    content = json.loads((source.path / "summary.json").read_text())
    content["selected"] = content["selected"] | {"jobs": [*range(jobs)]}
    (folder / "summary.json").write_text(json.dumps(content | {"jobs": jobs, "finished": jobs}))
    return folder


def slope(small: Taken, large: Taken, more: int) -> str:
    """What each further run adds."""
    cpu, memory = 1e3 * (large.cpu - small.cpu) / more, 1e3 * (large.memory - small.memory) / more
    return f"{cpu:.2f} ms of CPU and {memory:.0f} kB a run"


def measure(*, quick: bool = False, sizes: Sequence[int] = SIZES, stacked: int | None = None) -> Section:
    load = report.load()
    small, large = (2, 6) if quick else (min(sizes), max(sizes))
    stacked = stacked or (2 if quick else min(sizes))
    found: list[Figure] = []

    def grown(what: str, one: Taken, other: Taken) -> None:
        found.extend(Figure(f"{what}, {n:,} jobs", str(each)) for n, each in ((small, one), (large, other)))
        found.append(Figure(f"… {what}: slope", slope(one, other, large - small)))

    with commands.workplace() as here:
        grown("`dlrun check -m`", *(take(here, "check", "-m", f"seed=range({n})") for n in (small, large)))
        plain = ("trainer.figures=false", "trainer.log_every=1")
        trained = take(here, *STACKED, f"seed=range({stacked})", *plain)
        found.append(Figure(f"one-epoch runs, stacked, {stacked:,}, in MLflow", str(trained)))
        (source,) = (SweepDir(path.parent) for path in here.glob("outputs/sweeps/*/*/manifest.json"))
        found += [*_files(source), *_store(here / "outputs" / "mlflow.db", stacked)]
        taken: dict[str, list[Taken]] = {"`dlrun runs`": [], "`dlrun report`": []}
        for n in (small, large):
            place = here / f"copied-{n}"
            folder = copied(source, place / "outputs", n)
            taken["`dlrun runs`"].append(take(place, "runs"))
            taken["`dlrun report`"].append(take(place, "report", str(folder)))
        for what, (one, other) in taken.items():
            grown(what, one, other)
    return Section("growth", "what grows with the number of runs", _command(sizes, stacked), found, NOTES, load)


def _command(sizes: Sequence[int], stacked: int) -> str:
    return f"python -m benchmarks.growth --sizes {min(sizes)} {max(sizes)} --stacked {stacked}"


def _files(sweep: SweepDir) -> list[Figure]:
    records, _ = journal.read(sweep.job(0).journal)
    steps = sum("metrics" in record for record in records)
    size, jobs = sweep.job(0).journal.stat().st_size, len(manifest.read(sweep).jobs)
    return [
        Figure("journal, each logged step", f"{size / steps:.0f} bytes"),
        Figure("manifest, each job", f"{sweep.manifest.stat().st_size / jobs:.0f} bytes"),
    ]


def _store(file: Path, runs: int) -> list[Figure]:
    with sqlite3.connect(file) as store:
        rows = {
            table: int(store.execute(f"select count(*) from {table}").fetchone()[0])
            for table in ("metrics", "latest_metrics", "params", "tags")
        }
    told = ", ".join(f"{count / (runs + 1):.0f} {table}" for table, count in rows.items())
    return [Figure("MLflow's store, rows a run", told), Figure("… bytes a run", f"{file.stat().st_size / runs:,.0f}")]


NOTES = (
    "`dlrun check -m seed=range(N)` and the stacked sweep are of the bare `dlrun train` (digits), its runs with"
    " trainer.figures=false; `runs` and `report` read copies of its folders. CPU seconds are without the uploader's,"
    " which runs at the lowest priority; the wall seconds of a sweep include it. Memory is the command's own peak."
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest form, as a check that it works")
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES, help="numbers of jobs (1,000 and 10,000)")
    parser.add_argument("--stacked", type=int, help="runs to train (the smaller number)")
    parser.add_argument("--write", action="store_true", help=f"into {report.RESULTS.name}")
    options = parser.parse_args()
    section = measure(quick=options.quick, sizes=options.sizes, stacked=options.stacked)
    print(section.markdown())
    if options.write:
        report.write(section)


if __name__ == "__main__":
    main()
