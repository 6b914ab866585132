"""The slides' program on a GPU: ten epochs of MNIST, once and a hundred times as one sweep. Training time only."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks import bare, commands, report
from benchmarks.alternation import spread
from benchmarks.peers.works import ConvNet
from benchmarks.report import Figure, Section
from benchmarks.step import images
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary

SLIDES = ("+experiment=mnist", "dataset.validation_size=0")
SIDE = ("tracking.enabled=false", "trainer.figures=false")
SHORT = ("+experiment=digits", "trainer.steps=2")
EPOCHS = 10


def seconds(x: Tensor, y: Tensor) -> float:
    """The seconds of the bare loop for ten epochs of images x [N, 1, 28, 28]."""
    model = ConvNet().to(x.device)
    bare.train(model, x[:1000], y[:1000], batch_size=100, lr=0.1)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(EPOCHS):
        bare.train(model, x, y, batch_size=100, lr=0.1)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def sweep(here: Path, *overrides: str) -> list[Summary]:
    """Train a sweep of stacked runs; returns the summaries of its jobs."""
    commands.call(commands.dlrun("train", "-m", *overrides, "hydra/launcher=batched", "sweep.fresh=true"), here)
    newest = max(here.glob("outputs/sweeps/*/*"), key=lambda folder: folder.stat().st_mtime_ns)
    return [RunDir(file.parent).summary() for file in sorted(newest.glob("[0-9]*/summary.json"))]


def error_figure(what: str, summaries: list[Summary]) -> Figure:
    """The runs' test errors: median, best, worst."""
    errors = sorted(100 * s.metrics["test/error"] for s in summaries)
    return Figure(what, f"{median(errors):.2f} % ({errors[0]:.2f} to {errors[-1]:.2f}, n = {len(errors)})")


def measure(*, quick: bool = False, repeats: int = 5, runs: int = 100) -> Section:
    """Without a GPU, an empty section (with `quick`, two steps on the CPU)."""
    load, here_is_one = report.load(), torch.cuda.is_available()
    figures: list[Figure] = []
    device = torch.cuda.get_device_name() if here_is_one else "no GPU"
    if here_is_one or quick:
        what, repeats, runs = (SHORT, 1, 2) if quick else (SLIDES, repeats, runs)
        with commands.workplace() as here:
            singles = [commands.train(here, *what, *SIDE, f"seed={seed}").summary() for seed in range(repeats)]
            many = sweep(here, *what, *SIDE, f"seed=range({runs})")
        one, all_of_them = [s.train_seconds or 0.0 for s in singles], sum(s.train_seconds or 0.0 for s in many)
        figures = [
            Figure(
                f"`dlrun train {' '.join(what)}`",
                f"{spread(one, '.3f', 's')} on {device}",
                goal="gpu_run",
                number=median(one),
            ),
            error_figure("… test error", singles),
            Figure(
                f"{runs} seeds as one sweep", f"{all_of_them:.1f} s on {device}", goal="gpu_hundred", number=all_of_them
            ),
            error_figure("… test error", many),
        ]
    if here_is_one and not quick:
        x, y, _ = images()
        alone = [seconds(x.cuda(), y.cuda()) for _ in range(3)]
        gain = f"{runs * median(alone) / all_of_them:.1f} ×"
        figures += [Figure("the bare loop", spread(alone, ".2f", "s")), Figure("the sweep / so many bare loops", gain)]
    notes = f"{device}. `train_seconds` of the summaries; of a sweep their sum, each job having its share of the time."
    return Section("gpu", "the slides' program on a GPU", "python -m benchmarks.gpu", figures, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two steps of digits on any device, as a check that it works"
    )
    parser.add_argument("--repeats", type=int, default=5, help="single runs (5)")
    parser.add_argument("--runs", type=int, default=100, help="runs of the sweep (100)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats, runs=options.runs).markdown())


if __name__ == "__main__":
    main()
