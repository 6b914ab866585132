"""Where and how a run computes: the device, the precision, the threads, repeatability."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

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
        raise ConfigError(f"trainer.device=«{device}» is no device. Type auto, cpu, cuda, cuda:1 or mps.") from None
    if missing or chosen.type not in ("cpu", "cuda", "mps"):
        count = torch.cuda.device_count() if chosen.type == "cuda" else 0
        raise ConfigError(
            f"trainer.device={device}: this machine has {count or 'no'} {chosen.type} device{'s' if count > 1 else ''} "
            f"for torch {torch.__version__}. Type trainer.device=auto or trainer.device=cpu."
        )
    if precision == "auto":
        precision = "tf32" if chosen.type == "cuda" else "fp32"
    return chosen, precision


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
    if execution.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if execution.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = execution.precision == "tf32"
        torch.backends.cudnn.benchmark = not execution.deterministic
    if execution.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if execution.deterministic != torch.are_deterministic_algorithms_enabled():
        # only where it changes something: the call imports torch._inductor, a second and more
        torch.use_deterministic_algorithms(execution.deterministic)


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
