"""Samples a second of one run in one and in two processes, beside plain DDP loops of the same models.

Each process has its share of the cores. With one, dlrun's ordinary loop is compared with DDP of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks import report, step
from benchmarks.alternation import alternate, cost, ratios, spread
from benchmarks.report import Figure, Section
from benchmarks.step import Case, Silent
from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.execution.ranks.batches import part_of
from dlrun.execution.ranks.spread import spread as spread_training
from dlrun.execution.ranks.world import world
from dlrun.models.convnet import ConvNet
from dlrun.models.gpt import GPT
from dlrun.models.mlp import MLP

NUMBERS = (1, 2)
TARGET = 0.98
CONTEXT, VOCABULARY = 64, 65


class TokenLoss(nn.Module):
    """The mean cross-entropy of tokens."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), y.flatten())


def cases(*, quick: bool = False) -> list[Case]:
    """The models, each with so many samples that a round takes a fraction of a second."""
    x, y, _ = step.images()
    few, many, texts = (200, 320, 16) if quick else (500, 3_200, 80)
    tokens = torch.randint(0, VOCABULARY, (texts, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    return [
        Case("convnet", lambda: ConvNet((1, 28, 28), 10), x[:few], y[:few], 100, 50, 1),
        Case(
            *("GPT", lambda: GPT((CONTEXT,), VOCABULARY, size="nano"), tokens[:, :-1], tokens[:, 1:], 16, 10, 1),
            criterion=TokenLoss,
        ),
        Case("MLP", lambda: MLP((784,), 10, width=64), x[:many].flatten(1), y[:many], 64, 20, 1),
    ]


@dataclass(frozen=True)
class Worker:
    """One of the processes."""

    rank: int
    ranks: int

    def ours(self, case: Case) -> float:
        """Samples a second of dlrun's loop."""
        training = step.training(case, _fresh(case))
        if joined := world():
            training = spread_training(training, joined, unused=False)
        return self._timed(case, lambda: loop.train(training, State(), Silent()))

    def plain(self, case: Case) -> float:
        """Samples a second of a loop written with DDP."""
        model = DistributedDataParallel(_fresh(case))
        optimizer, criterion = torch.optim.SGD(model.parameters(), lr=case.lr), case.criterion()
        part = part_of(case.batch_size, self.rank, self.ranks)
        length = part.stop - part.start

        def train() -> None:
            for b in range(0, case.steps * case.batch_size, case.batch_size):
                output = model(case.x.narrow(0, b + part.start, length))
                loss = criterion(output, case.y.narrow(0, b + part.start, length))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return self._timed(case, train)

    def _timed(self, case: Case, work: Callable[[], object]) -> float:
        dist.barrier()
        return case.steps * case.batch_size / cost(work).wall

    def measure(self, case: Case, repeats: int) -> dict[str, list[float]]:
        return alternate({"dlrun": lambda: self.ours(case), "ddp": lambda: self.plain(case)}, repeats)


def _fresh(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.make()


def work(path: Path, *, quick: bool) -> None:
    """Measure as one of the processes that `processes` starts; the first writes the numbers."""
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    if world() is None:
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{os.environ['MASTER_PORT']}", rank=0, world_size=1
        )
    worker = Worker(rank, ranks)
    found = {}
    for case in cases(quick=quick):
        found[case.name] = worker.measure(case, 2 if quick else 5)
        if rank == 0:
            print(f"  {case.name}, {ranks} of them: measured", file=sys.stderr, flush=True)
            path.write_text(json.dumps(found))


def processes(ranks: int, *, quick: bool) -> dict[str, dict[str, list[float]]]:
    """The numbers of so many processes, by case and loop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        command = [sys.executable, "-m", "benchmarks.ranks", "--work", str(path), *(["--quick"] if quick else [])]
        started = [
            subprocess.Popen(command, env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]
        codes = [each.wait() for each in started]
        if any(codes):
            raise RuntimeError(f"{' '.join(command)} has failed")
        found: dict[str, dict[str, list[float]]] = json.loads(path.read_text())
    return found


def measure(*, quick: bool = False) -> Section:
    load, figures = report.load(), []
    for ranks in NUMBERS:
        for name, rates in processes(ranks, quick=quick).items():
            figures += figures_of(f"{name}, {ranks} process{'es' * (ranks > 1)}", rates)
    notes = (
        "Both loops train by SGD with gloo on the CPU; a ratio is dlrun's samples a second by those of the plain loop."
    )
    return Section("ranks", "several processes beside plain DDP", "python -m benchmarks ranks", figures, notes, load)


def figures_of(name: str, rates: dict[str, list[float]]) -> list[Figure]:
    """The samples a second of both loops, and their ratio."""
    quotients = ratios(rates["dlrun"], rates["ddp"])
    met = median(quotients) >= TARGET
    return [
        Figure(f"{name}: dlrun, samples a second", spread(rates["dlrun"])),
        Figure(f"{name}: plain DDP, samples a second", spread(rates["ddp"])),
        Figure(f"{name}: ratio", spread(quotients), f"≥ {TARGET}", met),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="take part in a measurement, and write to this file")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.work:
        work(options.work, quick=options.quick)
    else:
        print(measure(quick=options.quick).markdown())


if __name__ == "__main__":
    main()
