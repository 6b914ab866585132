"""Where and how a run computes: the device, the precision, the threads, repeatability; how fast it could be."""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dlrun.datasets.files.cache import cache_root
from dlrun.errors import ConfigError

TINY_STEP = 2e7
"""FLOP a step below which a second thread only waits for the first (measured on 2 cores)."""


@dataclass(frozen=True)
class Execution:
    """The choices that a result depends on to the last bit."""

    device: torch.device
    precision: str
    threads: int
    deterministic: bool
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    why: str = ""
    """Why it is compiled, or not."""

    def summary(self) -> dict[str, Any]:
        """Return the choices that a resumed run obeys."""
        chosen = {"memory_format": self.memory_format, "compile": self.compile, "why": self.why}
        return {"device": self.device.type} | chosen


def choose(device: str, precision: str) -> tuple[torch.device, str]:
    """Return the device and the precision that `auto` stands for, or what was asked for if it is here.

    `auto` is CUDA, then MPS, then the CPU; its precision is tf32 on CUDA, fp32 elsewhere.

    Raises `ConfigError` for a device that this machine lacks.
    """
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        chosen = torch.device(device)
        missing = (chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()) or (
            chosen.type == "mps" and not torch.backends.mps.is_available()
        )
    except RuntimeError:
        raise ConfigError(f"trainer.device=`{device}` is no device. Type auto, cpu, cuda, cuda:1 or mps.") from None
    if missing or chosen.type not in ("cpu", "cuda", "mps"):
        count = torch.cuda.device_count() if chosen.type == "cuda" else 0
        raise ConfigError(
            f"trainer.device={device}: this machine has {count or 'no'} {chosen.type} device{'s' if count > 1 else ''} "
            f"for torch {torch.__version__}. Type trainer.device=auto or trainer.device=cpu."
        )
    if precision == "auto":
        precision = "tf32" if chosen.type == "cuda" else "fp32"
    return chosen, precision


def autocast(device: torch.device, precision: str) -> tuple[str, torch.dtype] | None:
    """Return the device's type and the type that models compute in there, None where that is as it is."""
    return (device.type, torch.bfloat16) if precision == "bf16" else None


def threads_for(flop: int, device: torch.device) -> int:
    """Return the number of CPU threads that a step of `flop` operations can use, of those that the process may have.

    A job of a sweep may have its slot's share of the cores.
    """
    if device.type == "cpu" and flop < TINY_STEP:
        return 1
    return torch.get_num_threads()


def apply(execution: Execution) -> None:
    """Set the process to compute as `execution` says."""
    torch.set_num_threads(execution.threads)
    keep_freed_memory()
    if execution.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if execution.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = execution.precision == "tf32"
        torch.backends.cudnn.benchmark = not execution.deterministic
    if execution.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if execution.deterministic != torch.are_deterministic_algorithms_enabled():
        # only where it changes something: the call imports torch._inductor, a second and more
        torch.use_deterministic_algorithms(execution.deterministic)


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one; elsewhere nothing changes.

    It gives large blocks back to the system as soon as they are freed, and each step would pay for having them
    cleared and mapped again: of a step over a vocabulary of 33,278 words that is half.
    """
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # their numbers in malloc.h, the same for all of glibc
    with suppress(OSError, AttributeError):  # macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 64 << 20)):
            mallopt(parameter, size)


def describe(device: torch.device) -> str:
    """Return the device's name as people know it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        with suppress(OSError), Path("/proc/cpuinfo").open() as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return device.type


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
"""TFLOP a second in bf16, tf32 and fp32 of the GPUs whose name has the words of the key, the first that fits.

Dense matrix products with sums in fp32, as NVIDIA's data sheets have them (those of Hopper, Ada and Blackwell give
twice as much, with sparsity), and for GeForce the white papers of AD102 and GA102, whose other models (Ti, D, Laptop)
have other rates. Compared in November 2026 with data sheets as vendors quote them; not found there, and so from memory:
the two NVL, A30, A10G, and the RTX 3090 but for fp32. None: the GPU has no such units.
"""


def peak(execution: Execution, *, measure: bool) -> float | None:
    """Return the FLOP a second that the device reaches at the run's precision, None where that is not known.

    Of a GPU it is what the data sheet says. Of a CPU it is what a matrix product reaches on one thread, times the
    threads: measured once for a machine, if `measure` allows it, and kept in the cache.
    """
    if execution.device.type == "cuda":
        return _listed(describe(execution.device), execution.precision)
    if execution.device.type != "cpu":
        return None
    name = f"{describe(execution.device)}, torch {torch.__version__}, {execution.precision}"
    known = _kept()
    if name not in known and measure:
        known |= {name: _measured(torch.bfloat16 if execution.precision == "bf16" else torch.float32)}
        _keep(known)
    return known[name] * execution.threads if name in known else None


def _listed(name: str, precision: str) -> float | None:
    rates = next((rates for key, rates in PEAKS.items() if re.search(rf"\b{key}\b(?! (Ti|D)\b)", name)), None)
    if rates is None or "Laptop" in name or "MIG" in name:
        return None
    rate = rates[("bf16", "tf32", "fp32").index(precision)]
    # a GPU from before tf32 computes in fp32 where it is asked for
    rate = rates[2] if rate is None and precision == "tf32" else rate
    return rate * 1e12 if rate else None


def _measured(dtype: torch.dtype) -> float:
    """Return the FLOP a second of the best of some matrix products on one thread.

    The time is the thread's own: what other programs take of the processor meanwhile is not in it.
    """
    best, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for n in (128, 256, 512):
        a, seconds = torch.ones(n, n, dtype=dtype), []
        for _ in range(6):
            began = time.thread_time()
            a @ a
            seconds.append(time.thread_time() - began)
        best = max(best, 2 * n**3 / max(min(seconds), 1e-9))
        if min(seconds) > 0.003:  # what is slow is not made better by more of it
            break
    torch.set_num_threads(threads)
    return best


def _kept() -> dict[str, float]:
    with suppress(OSError, ValueError):
        return {str(name): float(rate) for name, rate in json.loads((cache_root() / "peaks.json").read_text()).items()}
    return {}


def _keep(rates: dict[str, float]) -> None:
    with suppress(OSError):  # a cache that cannot be written costs a measurement at each run
        cache_root().mkdir(parents=True, exist_ok=True)
        temporary = cache_root() / f".peaks.json.{os.getpid()}"
        temporary.write_text(json.dumps(rates, indent=2))
        temporary.replace(cache_root() / "peaks.json")
