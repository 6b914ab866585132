"""The peak of a device: from data sheets for GPUs, measured for a CPU and for GPUs without one."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

from dlrun.execution.device import Execution, describe
from dlrun.execution.kernel_rates import best_product, one_thread
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

    None if it is not known. For a GPU, the data sheet's, else the one that `dlrun bench peak` has measured. For a CPU,
    that of one thread's fastest matrix product or convolution, times the threads: measured once for a machine, if
    `measure`, and cached.
    """
    device, name = execution.device, _name(execution)
    if device.type == "cuda" and (sheet := from_data_sheet(describe(device), execution.precision)):
        return sheet
    cached = _read_cache()
    if device.type == "cpu" and name not in cached and measure:
        cached |= {name: one_thread(_dtype(execution))}
        _write_cache(cached)
    return cached[name] * _times(execution) if name in cached else None


def measure_peak(execution: Execution) -> float:
    """Measure a device's peak anew, and cache it; returns FLOP a second."""
    cpu = execution.device.type == "cpu"
    rate = one_thread(_dtype(execution)) if cpu else best_product(execution.device, execution.precision).rate
    _write_cache(_read_cache() | {_name(execution): rate})
    return rate * _times(execution)


def cache_file() -> Path:
    """The file of the measured peaks."""
    return cache_root() / "peak_flops.json"


def _name(execution: Execution) -> str:
    kernels = "products and convolutions" if execution.device.type == "cpu" else "products"
    return f"{describe(execution.device)}, torch {torch.__version__}, {execution.precision}, {kernels}"


def _dtype(execution: Execution) -> torch.dtype:
    return torch.bfloat16 if execution.precision == "bf16" else torch.float32


def _times(execution: Execution) -> int:
    # of a CPU, the rate of a thread is cached
    return execution.threads if execution.device.type == "cpu" else 1


def from_data_sheet(name: str, precision: str) -> float | None:
    """A GPU's FLOP a second by its data sheet; None if it is not known."""
    rates = next((rates for key, rates in PEAKS.items() if re.search(rf"\b{key}\b(?! (Ti|D)\b)", name)), None)
    # a laptop's GPU is a slower one of the same name, a MIG device a part of one
    if rates is None or "Laptop" in name or "MIG" in name:
        return None
    rate = rates[("bf16", "tf32", "fp32").index(precision)]
    # a GPU older than tf32 computes in fp32 instead
    rate = rates[2] if rate is None and precision == "tf32" else rate
    return rate * 1e12 if rate else None


def _read_cache() -> dict[str, float]:
    with suppress(OSError, ValueError):
        return {str(name): float(rate) for name, rate in cache.load(cache_file()).items()}
    return {}


def _write_cache(rates: dict[str, float]) -> None:
    # a cache that cannot be written costs a measurement at each run
    with suppress(OSError):
        cache.save(cache_file(), rates)
