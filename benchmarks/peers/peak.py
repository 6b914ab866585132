"""The machine's peaks: FLOP/s of matrix products and bytes per second of copies."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work

SIZE = 1024
BYTES = 1 << 27
SECONDS = 0.3


def best(do: Callable[[], object]) -> float:
    """The least time of one call within `SECONDS` (at least three calls)."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return min(times)


def train(work: Work, watch: Watch) -> dict[str, float]:
    """Both peaks on the work's threads; a copy reads and writes each byte."""
    a, b = torch.ones(SIZE, SIZE), torch.empty(SIZE, SIZE)
    source = torch.ones(BYTES // 4)
    target = torch.empty_like(source)
    watch.at(0)
    gemm = 2 * SIZE**3 / best(lambda: torch.mm(a, a, out=b))
    copied = 2 * BYTES / best(lambda: target.copy_(source))
    watch.at(1)
    return {"gemm": gemm, "copied": copied}
