"""The peak of a device: from data sheets for GPUs, measured for a CPU."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import torch

from dlrun.execution.device import Execution, describe
from dlrun.storage.files import cache
from dlrun.storage.files.cache import cache_root

PEAKS: dict[str, tuple[float | None, float | None, float]] = {
    "B200": (2250, 1100, 75),
    "GB200": (2500, 1250, 80),
    "H200 NVL": (835, 417, 60),
    "H200": (989, 494, 67),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "H100": (989, 494, 67),
    "A100": (312, 156, 19.5),
    "A30": (165, 82, 10.3),
    "A40": (150, 75, 37.4),
    "A10G": (70, 35, 31.5),
    "A10": (125, 62.5, 31.2),
    "L40S": (362, 183, 91.6),
    "L40": (181, 90.5, 90.5),
    "L4": (121, 60, 30.3),
    "RTX 4090": (165, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
    "V100-SXM2": (None, None, 15.7),
    "V100-PCIE": (None, None, 14.0),
    "T4": (None, None, 8.1),
}
"""TFLOP a second in bf16, tf32 and fp32 (None: no such units), by words of the GPU's name; the first key that fits.

Dense matrix products with sums in fp32, from NVIDIA's data sheets (those of Hopper, Ada and Blackwell give twice as
much, with sparsity), for GeForce from the white papers of AD102 and GA102, whose other models (Ti, D, Laptop) have
other rates. Compared in November 2026 with data sheets as vendors quote them. Not found there, and so from memory: the
two NVL, A30, A10G, and the RTX 3090 but for fp32.
"""


def peak_flops(execution: Execution, *, measure: bool) -> float | None:
    """The peak FLOP a second at the run's precision.

    None if it is not known. For a GPU, the data sheet's. For a CPU, that of a matrix product on one thread, times the
    threads: measured once for a machine, if `measure`, and cached.
    """
    if execution.device.type == "cuda":
        return _from_data_sheet(describe(execution.device), execution.precision)
    if execution.device.type != "cpu":
        return None
    name = f"{describe(execution.device)}, torch {torch.__version__}, {execution.precision}"
    cached = _read_cache()
    if name not in cached and measure:
        cached |= {name: _measure(torch.bfloat16 if execution.precision == "bf16" else torch.float32)}
        _write_cache(cached)
    return cached[name] * execution.threads if name in cached else None


def _from_data_sheet(name: str, precision: str) -> float | None:
    rates = next((rates for key, rates in PEAKS.items() if re.search(rf"\b{key}\b(?! (Ti|D)\b)", name)), None)
    # a laptop's GPU is a slower one of the same name, a MIG device a part of one
    if rates is None or "Laptop" in name or "MIG" in name:
        return None
    rate = rates[("bf16", "tf32", "fp32").index(precision)]
    # a GPU older than tf32 computes in fp32 instead
    rate = rates[2] if rate is None and precision == "tf32" else rate
    return rate * 1e12 if rate else None


def _measure(dtype: torch.dtype) -> float:
    """The FLOP a second of the fastest matrix product."""
    best, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for n in (128, 256, 512):
        a, seconds = torch.ones(n, n, dtype=dtype), []
        for _ in range(6):
            began = time.thread_time()  # the thread's own time: others may share the core
            a @ a
            seconds.append(time.thread_time() - began)
        best = max(best, 2 * n**3 / max(min(seconds), 1e-9))
        if min(seconds) > 0.003:  # on a slow processor a larger product is no faster
            break
    torch.set_num_threads(threads)
    return best


def _read_cache() -> dict[str, float]:
    with suppress(OSError, ValueError):
        return {str(name): float(rate) for name, rate in cache.load(cache_root() / "peak_flops.json").items()}
    return {}


def _write_cache(rates: dict[str, float]) -> None:
    # a cache that cannot be written costs a measurement at each run
    with suppress(OSError):
        cache.save(cache_root() / "peak_flops.json", rates)
