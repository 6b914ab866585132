"""Stacked runs, and the same runs one after another in the bare loop, on one thread.

The runs differ in initial weights, order and rate. Of the bare runs only some are trained, and their time is scaled up:
all cost the same. The final weights are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import report
from benchmarks.alternation import alternate, cost, ratios, spread
from benchmarks.report import Figure, Section
from benchmarks.step import Silent, images
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.execution import device
from dlrun.execution.compiled import make_stepper
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.mlp import MLP
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.schedules.curves import constant
from dlrun.stacked.training import StackedRecorder, StackedTraining

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Runs of `steps` steps, of which `shown` are trained bare; `tiny` runs are also measured compiled."""

    name: str
    goal: str
    target: float
    make: Callable[[], nn.Module]
    split: TensorSplit
    batch_size: int
    rates: list[float]
    steps: int
    shown: int
    tiny: bool


def cases(*, quick: bool = False) -> list[Case]:
    """Tiny networks, where calls dominate, and small ones, where matrix products do.

    The small network comes in batches of 32, as in `frameworks`, and of 100, where products are a larger part of a
    step; stacking does not make those cheaper.
    """
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, 2, generator=draw)
    circle = TensorSplit(x, (x.square().sum(1) > 1).long())
    images_, classes, _ = images()
    digits = TensorSplit(images_[:6_000].flatten(1), classes[:6_000])
    of_rates = [0.01 + 0.09 * i / 9 for i in range(10)]
    many, few = (10, 4) if quick else (100, 10)
    seeds = [0.01 + 0.09 * i / many for i in range(many)]
    return [
        Case(
            f"{many} seeds of a 2-D MLP (8 layers of 2, batches of 32)",
            "seeds_2d",
            33,
            lambda: MLP((2,), 2, hidden=[2] * 8, activation="tanh"),
            circle,
            32,
            seeds,
            20 if quick else 200,
            3,
            True,
        ),
        *(
            Case(
                f"{few} rates × {few} seeds of a 784-64-10 MLP (batches of {size})",
                f"seeds_mlp_{size}",
                1.8,
                lambda: MLP((784,), 10, width=64),
                digits,
                size,
                [rate for rate in of_rates[:few] for _ in range(few)],
                3 if quick else 60,
                5,
                False,
            )
            for size in (32, 100)
        ),
    ]


def member(case: Case, i: int) -> loop.Training:
    """The parts of run `i`."""
    torch.manual_seed(i)
    objective = Objective(case.make(), cross_entropy)
    optimizer = Descent(SGD(lr=case.rates[i]))
    optimizer.init(objective)
    batches = Batches(case.split, case.batch_size, seed=i, device=CPU)
    plan = Plan(case.steps, batches.per_epoch, log_every=50, evaluate_every=10**9, checkpoint_seconds=1e9)
    return loop.Training(objective, batches, optimizer, constant, plan, i, CPU)


def bare(case: Case, i: int) -> tuple[float, list[Tensor]]:
    """The CPU seconds of run `i` in the bare loop, and its final weights."""
    torch.manual_seed(i)
    model = case.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=case.rates[i])
    batches = Batches(case.split, case.batch_size, seed=i, device=CPU)
    epochs = range(1 + case.steps // batches.per_epoch)
    order = [index for epoch in epochs for index in batches.indices(epoch)][: case.steps]

    def train() -> None:
        for index in order:
            loss = F.cross_entropy(model(case.split.x[index]), case.split.y[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return cost(train).cpu, [p.detach() for p in model.parameters()]


def stacked(case: Case, *, compiled: bool = False) -> tuple[float, StackedTraining]:
    """The CPU seconds of all runs stacked, and the training at its end."""
    training = StackedTraining([member(case, i) for i in range(len(case.rates))])
    if compiled:
        stepper = make_stepper(training)
        training.stepper = lambda: stepper  # type: ignore[method-assign]  # compiled before the clock starts
    recorder = StackedRecorder(training, [Silent()] * len(case.rates))
    return cost(lambda: loop.train(training, training.state, recorder)).cpu, training


def difference(case: Case) -> float:
    """The largest difference of a weight between bare and stacked runs."""
    training = stacked(case)[1]
    pairs = [(training.members[i].objective.params, bare(case, i)[1]) for i in range(case.shown)]
    return max(float((a - b).detach().abs().max()) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def compare(case: Case, *, repeats: int, compiled: bool, judged: bool) -> list[Figure]:
    """The speed-up of each form over the bare loop."""
    runs = len(case.rates)
    programs: dict[str, Callable[[], float]] = {
        "bare": lambda: sum(bare(case, i)[0] for i in range(case.shown)) * runs / case.shown,
        "stacked": lambda: stacked(case)[0],
    }
    if compiled and case.tiny:
        programs["compiled"] = lambda: stacked(case, compiled=True)[0]
    found = alternate(programs, repeats)
    figures = [
        Figure(
            f"{case.name}: bare, a run and step",
            spread([1e6 * s / runs / case.steps for s in found["bare"]], unit="µs"),
        )
    ]
    for name in [*programs][1:]:
        gain = ratios(found["bare"], found[name])
        value, number = f"{spread(gain)} × faster", median(gain)
        what = f"{case.name}: {name}"
        if not judged:
            figures.append(Figure(what, value))
            continue
        goal = case.goal if name == "stacked" else ""
        figures.append(Figure(what, value, f"≥ {case.target:g} ×", number >= case.target, goal, number))
    figures.append(Figure(f"{case.name}: largest difference of the weights", f"{difference(case):.1e}"))
    return figures


def measure(*, quick: bool = False, compiled: bool | None = None, repeats: int = 5) -> Section:
    began, threads = report.load(), torch.get_num_threads()
    torch.set_num_threads(1)
    device.keep_freed_memory()  # as a run has it; the bare loop gains from it here, too
    try:
        programs = not quick if compiled is None else compiled
        compared = partial(compare, repeats=2 if quick else repeats, compiled=programs, judged=not quick)
        figures = [figure for case in cases(quick=quick) for figure in compared(case)]
    finally:
        torch.set_num_threads(threads)
    notes = "CPU seconds of training alone; compiling comes before."
    return Section("stacked", "many runs as one program", "python -m benchmarks stacked", figures, notes, began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs and steps, as a check that it works")
    parser.add_argument(
        "--no-compile", action="store_true", help="no compiled programs, which take a minute to compile"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(measure(quick=options.quick, compiled=not options.no_compile, repeats=options.repeats).markdown())


if __name__ == "__main__":
    main()
