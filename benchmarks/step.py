"""The time of a step: `dlrun.engine.loop.train` and a bare loop of the same maths, on the same threads.

Many short rounds are better than few long ones: the load of the machine changes by the second.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import bare, report
from benchmarks.alternation import Cost, added, alternate, cost, ratios, spread
from benchmarks.report import Figure, Section
from dlrun.datasets.files.files import folder_of
from dlrun.datasets.files.sources import MNIST
from dlrun.datasets.mnist import mnist
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.protocols import Recorder, Stepper
from dlrun.engine.state import State
from dlrun.errors import DataError
from dlrun.execution import compiled as program
from dlrun.execution import memory_format
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.models.convnet import ConvNet
from dlrun.models.mlp import MLP
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.storage.journal import Journal
from dlrun.types import Loss

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One epoch of `x` and `y`."""

    name: str
    make: Callable[[], nn.Module]
    x: Tensor
    y: Tensor
    batch_size: int
    log_every: int
    threads: int
    loss: Loss = cross_entropy
    criterion: type[nn.Module] = nn.CrossEntropyLoss
    lr: float = 0.1

    @property
    def steps(self) -> int:
        return len(self.x) // self.batch_size


class Silent:
    """A recorder that records nothing."""

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None: ...

    def save(self, content: Any, best: Any) -> None: ...


class Journaled(Silent):
    """Writes the curves into a journal, as a run does."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        self._journal.metrics(step, epoch, values)


def images() -> tuple[Tensor, Tensor, str]:
    """MNIST's training images and classes, or random ones of the same shapes, and their name."""
    try:
        # an explicit path is never downloaded to
        split = mnist(path=str(folder_of(MNIST)), validation_size=0).train
        x, y = split.gather(torch.arange(len(split)))
        return x, y, "MNIST"
    except DataError:
        draw = torch.Generator().manual_seed(0)
        y = torch.randint(0, 10, (60_000,), generator=draw)
        return torch.randn(60_000, 1, 28, 28, generator=draw), y, "random images of MNIST's shape"


def cases(*, quick: bool = False) -> tuple[list[Case], str]:
    """The cases, and the name of their data."""
    x, y, data = images()
    few, many = (300, 320) if quick else (2_500, 12_000)
    flat = x[:many].flatten(1)
    return [
        # log_every as the experiment mnist and a run of this length have it
        Case("convnet", lambda: ConvNet((1, 28, 28), 10), x[:few], y[:few], 100, 50, torch.get_num_threads()),
        Case("mlp", lambda: MLP((784,), 10, width=64), flat, y[:many], 32, 20, 1),
        # so small that operator calls dominate
        Case(
            "8 layers of 2", lambda: MLP((2,), 10, hidden=[2] * 8, activation="tanh"), flat[:, :2], y[:many], 32, 20, 1
        ),
        Case("polynomial", partial(MLP, (10,), 1, depth=0), *_powers(many), 32, 20, 1, mse, nn.MSELoss, 0.01),
    ], data


def _powers(n: int) -> tuple[Tensor, Tensor]:
    """The powers 0 … 9 of points, and values of a sine: features and targets of a polynomial."""
    x = torch.linspace(-1, 1, n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    return x[:, None] ** torch.arange(10), torch.sin(3 * x)[:, None]


def training(case: Case, model: nn.Module, *, norms: bool = False) -> loop.Training:
    """The case's parts for dlrun's loop; with `norms`, the norm of each layer's gradient at each point."""
    optimizer = Descent(SGD(lr=case.lr))
    optimizer.measure_norms = norms
    memory_format.apply(model, memory_format.choose("auto", model, optimizer, CPU, "fp32"))
    objective = Objective(model, case.loss)
    optimizer.init(objective)
    steps = case.steps
    return loop.Training(
        objective=objective,
        batches=Batches(TensorSplit(case.x, case.y), case.batch_size, seed=0, device=CPU),
        optimizer=optimizer,
        schedule=lambda step, steps: 1.0,
        plan=Plan(steps, steps, log_every=case.log_every, evaluate_every=steps, checkpoint_seconds=30.0),
        seed=0,
        device=CPU,
    )


def ours(case: Case, model: nn.Module, recorder: Recorder[float, Any, Any], *, norms: bool = False) -> None:
    """Train the case with dlrun's loop."""
    loop.train(training(case, model, norms=norms), State(), recorder)


def by_hand(case: Case, model: nn.Module) -> None:
    """Train the case in the bare loop."""
    bare.train(model, case.x, case.y, batch_size=case.batch_size, lr=case.lr, criterion=case.criterion())


def compiled(case: Case, model: nn.Module) -> tuple[Cost, loop.Training]:
    """The cost of compiling the case's step, and the case with compiled steps."""
    run = training(case, model)
    model.train()
    steppers: list[Stepper] = []
    took = cost(lambda: steppers.append(program.make_stepper(run)))
    run.make_stepper = lambda run: steppers[0]
    return took, run


def compare(case: Case, repeats: int, *, compiling: bool = False) -> dict[str, list[Cost]]:
    """The cost of an epoch in each form, round by round; `compiling` has the cost of compiling a step."""

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return case.make()

    def timed(train: Callable[[nn.Module], None]) -> Callable[[], Cost]:
        def program() -> Cost:
            model = fresh()
            return cost(lambda: train(model))

        return program

    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.jsonl")
        path.touch()
        journal = Journal(path)
        programs = {
            "bare": timed(lambda model: by_hand(case, model)),
            "dlrun": timed(lambda model: ours(case, model, Silent())),
            "journal": timed(lambda model: ours(case, model, Journaled(journal))),
            "norms": timed(lambda model: ours(case, model, Journaled(journal), norms=True)),
        }
        took = {}
        if compiling:
            seconds, run = compiled(case, fresh())
            took["compiling"] = [seconds]
            programs["compiled"] = lambda: cost(lambda: loop.train(run, State(), Silent()))
        try:
            return alternate(programs, repeats) | took
        finally:
            journal.close()
            torch.set_num_threads(before)


def measure(*, quick: bool = False, repeats: int | None = None, compiling: bool = False) -> Section:
    load, figures = report.load(), []
    all_cases, data = cases(quick=quick)
    for case in all_cases:
        costs = compare(case, repeats or (2 if quick else 45), compiling=compiling and case.name != "convnet")
        compile_costs = costs.pop("compiling", [])
        wall = {name: [c.wall / case.steps for c in series] for name, series in costs.items()}
        cpu = {name: [c.cpu / case.steps for c in series] for name, series in costs.items()}
        figures += _figures(case, wall, cpu)
        figures += [Figure(f"{case.name}: to compile, CPU time", f"{took.cpu:.1f} s") for took in compile_costs]
    notes = _notes(all_cases, data)
    return Section("step", "a step beside a bare loop", "python -m benchmarks.step", figures, notes, load)


def _figures(case: Case, wall: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[Figure]:
    threads = f"{case.threads} thread{'s' * (case.threads > 1)}"
    label = f"{case.name}, batch {case.batch_size}, {threads}"
    figures = [Figure(f"{label}: bare loop, a step", spread([1e6 * s for s in wall["bare"]], ".0f", "µs"))]
    for name, shown in (("dlrun", "dlrun"), ("journal", "dlrun with its journal")):
        times = ratios(wall[name], wall["bare"])
        more = [1e6 * s for s in added(wall[name], wall["bare"])]
        large = case.name == "convnet"
        figures += [
            Figure(
                f"{label}: {shown} / bare",
                spread(times, ".3f"),
                "≤ 1.02" if large else "",
                median(times) <= 1.02 if large else None,
            ),
            Figure(
                f"{label}: {shown}, more a step",
                spread(more, "+.1f", "µs"),
                "" if large else "≤ 10 µs",
                None if large else median(more) <= 10,
            ),
            Figure(f"{label}: {shown} / bare, CPU time", spread(ratios(cpu[name], cpu["bare"]), ".3f")),
        ]
    name = f"{label}: with the norms of gradients in the journal / without"
    figures += [
        Figure(
            name,
            spread(ratios(wall["norms"], wall["journal"]), ".3f"),
            "≤ 1.03",
            median(ratios(wall["norms"], wall["journal"])) <= 1.03,
        ),
        Figure(f"{name}, CPU time", spread(ratios(cpu["norms"], cpu["journal"]), ".3f")),
    ]
    if "compiled" in wall:
        times = ratios(wall["compiled"], wall["bare"])
        bound = {"8 layers of 2": 0.2, "polynomial": 0.15}.get(case.name)
        wanted = (f"≤ {bound:.2f}", median(times) <= bound) if bound else ("", None)
        figures.append(Figure(f"{label}: dlrun, compiled / bare", spread(times, ".3f"), *wanted))
    return figures


def _notes(all_cases: list[Case], data: str) -> str:
    epochs = "; ".join(f"{c.name}: an epoch of {c.steps} steps, a point every {c.log_every}" for c in all_cases)
    return (
        f"Data: {data}. {epochs}. The bare loop takes the samples as they lie; dlrun's part includes drawing the"
        " epoch's order, gathering the samples, seeding each step and reading the losses."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (45)")
    parser.add_argument("--compile", action="store_true", help="compiled steps too, a minute more")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats, compiling=options.compile).markdown())


if __name__ == "__main__":
    main()
