"""The rate of matrix products, which is a device's peak in practice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dlrun.execution.device import wait_for

LONG = 0.1
"""Seconds of a product from which on a larger one is no faster."""
REPEATS = 6
LARGEST = 16384


class Rate(NamedTuple):
    """FLOP a second of a product of two [size, size] matrices."""

    rate: float
    size: int


def one_thread(dtype: torch.dtype) -> float:
    """FLOP a second of a processor's fastest product, on one thread."""
    best, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for n in (128, 256, 512):
        # the thread's own time: others may share the core
        seconds = _least(torch.ones(n, n, dtype=dtype), time.thread_time, lambda: None)
        best = max(best, 2 * n**3 / max(seconds, 1e-9))
        if seconds > 0.003:  # on a slow processor a larger product is no faster
            break
    torch.set_num_threads(threads)
    return best


def best_product(device: torch.device, precision: str) -> Rate:
    """The fastest product at a precision: of a CPU on torch's threads."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best, n = Rate(0.0, 0), 256
    with _tf32(precision == "tf32"):
        while n <= LARGEST:
            try:
                # other values would draw another power, and with it another clock: ones are the best case
                matrix = torch.ones(n, n, dtype=dtype, device=device)
                seconds = _least(matrix, time.perf_counter, lambda: wait_for(device))
            except torch.OutOfMemoryError:
                break
            best = max(best, Rate(2 * n**3 / max(seconds, 1e-9), n))
            if seconds > LONG:
                break
            n *= 2
    return best


def _least(matrix: torch.Tensor, clock: Callable[[], float], wait: Callable[[], None]) -> float:
    taken = []
    for _ in range(REPEATS):
        wait()
        began = clock()
        matrix @ matrix
        wait()
        taken.append(clock() - began)
    return min(taken)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
