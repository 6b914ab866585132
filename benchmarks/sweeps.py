"""Sweeps as whole processes: the polynomial study, the cost of a job, and eight jobs at once on a new store."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import commands, report
from benchmarks.alternation import Cost, alternate, ratios, spread
from benchmarks.families import cost
from benchmarks.report import ROOT, Figure, Section

STUDY = ("train", "+experiment=polynomial_capacity", "sweep.fresh=true")
ONE_STEP = ("train", "-m", "dataset=digits", "model=linear", "trainer.steps=1", "trainer.figures=false")
OFF = "tracking.enabled=false"
PLAIN = "sweep.figures=false"


def study(here: Path, *overrides: str) -> Cost:
    """The cost of the capacity study, its uploader included."""
    return cost(commands.dlrun(*STUDY, *overrides), here)


def peer(here: Path, program: str, *overrides: str) -> Cost:
    """The cost of a peer's program as a Hydra sweep."""
    where = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    folder = "hydra.sweep.dir=peer/${now:%H%M%S%f}"
    return cost([sys.executable, "-m", f"benchmarks.peers.{program}", "-m", *overrides, folder], here, PYTHONPATH=where)


def separate(here: Path) -> Cost:
    """The cost of ten processes of one fit each, one after the other."""
    fits = [
        cost(commands.dlrun("train", "+experiment=polynomial", f"model.degree={d}", "trainer.figures=false"), here)
        for d in range(10)
    ]
    return Cost(sum(fit.wall for fit in fits), sum(fit.cpu for fit in fits))


def format_costs(costs: list[Cost]) -> str:
    """Median wall and CPU seconds with their spread."""
    return f"{spread([c.wall for c in costs], '.1f', 's')}; CPU {spread([c.cpu for c in costs], '.1f', 's')}"


def limited_figure(title: str, costs: list[Cost], most: float, *, goal: str) -> Figure:
    """A cost with a limit on its CPU seconds."""
    cpu = median([c.cpu for c in costs])
    return Figure(title, format_costs(costs), f"CPU ≤ {most} s", cpu <= most, goal, cpu)


def polynomial(here: Path, repeats: int, draws: int) -> list[Figure]:
    """The study; one draw against ten processes; many draws against a plain Hydra app."""
    many = f"seed=range({draws})"
    programs = {
        "whole": partial(study, here),
        "untracked": partial(study, here, OFF),
        "one draw": partial(study, here, "seed=0", PLAIN),
        "one draw untracked": partial(study, here, "seed=0", PLAIN, OFF),
        "ten processes": partial(separate, here),
        "many": partial(study, here, many, PLAIN),
        "many untracked": partial(study, here, many, PLAIN, OFF),
        "peer": partial(peer, here, "polynomial", "degree=range(10)", many),
    }
    taken = alternate(programs, repeats, warm_up=0)
    fewer = ratios([c.cpu for c in taken["peer"]], [c.cpu for c in taken["many"]])
    single = ratios([c.cpu for c in taken["ten processes"]], [c.cpu for c in taken["one draw"]])
    jobs = 10 * draws
    return [
        Figure("`dlrun train +experiment=polynomial_capacity`: 50 fits, MLflow, report", format_costs(taken["whole"])),
        Figure("… `tracking.enabled=false`", format_costs(taken["untracked"])),
        limited_figure("… `seed=0 sweep.figures=false`: ten fits", taken["one draw"], 5.5, goal="study_all"),
        limited_figure("… ten fits, `tracking.enabled=false`", taken["one draw untracked"], 2.6, goal="study_training"),
        Figure("the ten fits as ten `dlrun train`", format_costs(taken["ten processes"])),
        Figure("… CPU against the sweep's", spread(single, ".2f", "×")),
        Figure(f"… `seed=range({draws}) sweep.figures=false`: {jobs} fits", format_costs(taken["many"])),
        Figure(f"… {jobs} fits, `tracking.enabled=false`", format_costs(taken["many untracked"])),
        Figure(f"{jobs} fits in Hydra's basic launcher, an MLflow run each", format_costs(taken["peer"])),
        Figure("… CPU against the sweep's", spread(fewer, ".2f", "×"), "≥ 5 ×", median(fewer) >= 5),
    ]


def one_steps(here: Path, launcher: str, jobs: int) -> Cost:
    """The cost of a sweep of one-step runs."""
    choice = f"hydra/launcher={launcher}"
    return cost(commands.dlrun(*ONE_STEP, choice, OFF, PLAIN, f"seed=range({jobs})", "sweep.fresh=true"), here)


def overhead(here: Path, repeats: int, jobs: int) -> list[Figure]:
    """Measure what a job adds: a sweep of many one-step runs less one of ten, by the number of jobs between."""
    own = ["local", "batched"]
    programs = {f"{launcher} {n}": partial(one_steps, here, launcher, n) for launcher in own for n in (10, jobs)}
    launchers = ["basic", *(["joblib"] if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") else [])]
    for launcher in launchers:
        for n in (10, jobs):
            what = ("one_step", f"seed=range({n})", f"hydra/launcher={launcher}")
            programs[f"{launcher} {n}"] = partial(peer, here, *what)
    taken = alternate(programs, repeats, warm_up=0)
    figures = []
    for name in [*own, *launchers]:
        few, many = taken[f"{name} 10"], taken[f"{name} {jobs}"]
        wall = [1e3 * (b.wall - a.wall) / (jobs - 10) for a, b in zip(few, many, strict=True)]
        cpu = [1e3 * (b.cpu - a.cpu) / (jobs - 10) for a, b in zip(few, many, strict=True)]
        title = f"a job of one step, launcher {name}" + ("" if name in own else " of Hydra")
        figures.append(Figure(title, f"{spread(wall, '.0f', 'ms')}; CPU {spread(cpu, '.0f', 'ms')}"))
    return figures


def at_once(here: Path, tries: int) -> list[Figure]:
    """Start eight jobs at once on a store that they create, `tries` times; count the failures."""
    failed = 0
    for number in range(tries):
        folder = here / f"try{number}"
        folder.mkdir()
        command = commands.dlrun(*ONE_STEP, "seed=range(8)", "hydra.launcher.slots=8")
        cost(command, folder)
        runs = sorted(folder.glob("outputs/sweeps/*/*/[0-9]/summary.json"))
        read = [json.loads(run.read_text()) for run in runs]
        good = [s for s in read if s["status"] == "finished" and all(s["uploaded"].values())]
        failed += len(good) != 8
    return [Figure("8 slots at once on a new store: tries that failed", f"{failed} of {tries}", "0", failed == 0)]


def measure(*, quick: bool = False, repeats: int | None = None) -> Section:
    load, rounds = report.load(), repeats or (1 if quick else 3)
    with commands.workplace() as here:
        commands.train(here, "trainer.fast=true")  # makes the store
        peer(here, "polynomial", "degree=1")
        figures = polynomial(here, rounds, draws=2 if quick else 20)
        figures += overhead(here, rounds, jobs=12 if quick else 100)
        figures += at_once(here, tries=1 if quick else 20)
    notes = (
        "CPU seconds are those of the command and of every process that it started, the server of the jobs and the "
        "uploader included. Figures of single runs are off; the report's are drawn in the first two rows. The peers "
        "are `benchmarks/peers/`; a job's figures are (a sweep of 100 less a sweep of 10) / 90."
    )
    return Section("sweeps", "a study, a job, eight at once", "python -m benchmarks.sweeps", figures, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few jobs, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (3)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats).markdown())


if __name__ == "__main__":
    main()
