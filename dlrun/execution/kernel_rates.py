"""The rates of the fastest kernels, which are a device's peak in practice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

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
    """FLOP a second of a processor's fastest product or convolution, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # of two libraries, each the faster on some processors
        return max(_product_of_a_thread(dtype), _convolution_of_a_thread(dtype))
    finally:
        torch.set_num_threads(threads)


def _product_of_a_thread(dtype: torch.dtype) -> float:
    best = 0.0
    for n in (128, 256, 512):
        matrix = torch.ones(n, n, dtype=dtype)
        # the thread's own time: others may share the core
        seconds = _least(partial(torch.mm, matrix, matrix), time.thread_time)
        best = max(best, 2 * n**3 / seconds)
        if seconds > 0.003:  # on a slow processor a larger product is no faster
            break
    return best


@torch.no_grad()
def _convolution_of_a_thread(dtype: torch.dtype) -> float:
    batch, channels, side = 16, 128, 8
    x = torch.ones(batch, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.ones(channels, channels, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    seconds = _least(partial(F.conv2d, x, weight, padding=1), time.thread_time)
    return 2 * batch * side**2 * channels**2 * 3**2 / seconds


def best_product(device: torch.device, precision: str) -> Rate:
    """The fastest product at a precision: of a CPU on torch's threads."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best, n = Rate(0.0, 0), 256
    with _tf32(precision == "tf32"):
        while n <= LARGEST:
            try:
                # other values would draw another power, and with it another clock: ones are the best case
                matrix = torch.ones(n, n, dtype=dtype, device=device)
                seconds = _least(partial(_finished_product, matrix), time.perf_counter)
            except torch.OutOfMemoryError:
                break
            best = max(best, Rate(2 * n**3 / seconds, n))
            if seconds > LONG:
                break
            n *= 2
    return best


def _finished_product(matrix: torch.Tensor) -> None:
    wait_for((matrix @ matrix).device)


def _least(compute: Callable[[], object], clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = clock()
        compute()
        taken.append(clock() - began)
    return max(min(taken), 1e-9)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
