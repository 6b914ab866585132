"""A checkpoint on the disk: what fsync adds to saving, and the checksums to loading, at 1 MB, 100 MB and 1 GB."""

from __future__ import annotations

import argparse
import io
from functools import partial
from pathlib import Path

import torch

from benchmarks import commands, report
from benchmarks.alternation import added, alternate, cost, spread
from benchmarks.report import Figure, Section
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights

SIZES = {"1 MB": 1_000_000, "100 MB": 100_000_000, "1 GB": 1_000_000_000}


def save_plainly(path: Path, content: BestWeights) -> None:
    """Save as `checkpoint.save` does, and leave the writing to the kernel."""
    buffer = io.BytesIO()
    torch.save(content.to_dict(), buffer)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(buffer.getbuffer())
    temporary.replace(path)


def of_size(here: Path, name: str, size: int, rounds: int) -> list[Figure]:
    path = here / "checkpoints" / "best.pt"
    content = BestWeights(1, {}, {"weight": torch.randn(size // 4)})
    checkpoint.save(path, content)
    programs = {
        "plain": partial(cost, partial(save_plainly, path, content)),
        "save": partial(cost, partial(checkpoint.save, path, content)),
        "torch": partial(cost, partial(torch.load, path, weights_only=True)),
        "load": partial(cost, partial(checkpoint.read, path)),
    }
    taken = {key: [1e3 * each.wall for each in costs] for key, costs in alternate(programs, rounds).items()}
    fsync, sums = added(taken["save"], taken["plain"]), added(taken["load"], taken["torch"])
    return [
        Figure(f"{name}: saved", spread(taken["save"], ".1f", "ms")),
        Figure(f"{name}: … of which fsync of the file and its folder", spread(fsync, ".1f", "ms")),
        Figure(f"{name}: loaded", spread(taken["load"], ".1f", "ms")),
        Figure(f"{name}: … of which the checksums", spread(sums, ".1f", "ms")),
    ]


def measure(*, quick: bool = False, repeats: int | None = None) -> Section:
    load, rounds = report.load(), repeats or (2 if quick else 7)
    with commands.workplace() as here:
        sizes = {"1 MB": SIZES["1 MB"]} if quick else SIZES
        figures = [figure for name, size in sizes.items() for figure in of_size(here, name, size, rounds)]
    notes = "One tensor, in the temporary folder's file system. What fsync takes is the disk's affair."
    return Section("checkpoints", "what durability costs", "python -m benchmarks.checkpoints", figures, notes, load)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 MB, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (7)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats).markdown())


if __name__ == "__main__":
    main()
