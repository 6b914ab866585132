"""Device, precision, threads and determinism of a run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dlrun.errors import ConfigError
from dlrun.terminal.format import counted

TINY_STEP = 2e7
"""FLOP a step below which a second thread only waits for the first (measured on 2 cores)."""


@dataclass(frozen=True)
class Execution:
    """The device and the ways of computing on it."""

    device: torch.device
    precision: str
    threads: int
    deterministic: bool
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    why: str = ""
    """The reason for `compile`."""
    devices: int = 1
    """As many processes as the run has, each with one."""
    strategy: str = "ddp"
    """Of several: whether each has the weights (ddp) or a part of them (fsdp)."""
    micro_batch: Sequence[Mapping[str, Any]] = ()
    """What was found to fit into the memory before the first step."""

    @property
    def kind(self) -> str:
        """The kind of device and the number of processes, on which rounding depends."""
        if self.devices == 1:
            return self.device.type
        return f"{self.device.type} x{self.devices}" + (" fsdp" if self.strategy == "fsdp" else "")

    def summary(self) -> dict[str, Any]:
        """The choices for a resumed run to repeat."""
        choices: dict[str, Any] = {"memory_format": self.memory_format, "compile": self.compile, "why": self.why}
        choices |= {"devices": self.devices, "strategy": self.strategy} if self.devices > 1 else {}
        choices |= {"micro_batch": [*self.micro_batch]} if self.micro_batch else {}
        return {"device": self.device.type} | choices


_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)


@contextmanager
def gpus_elsewhere(there: bool) -> Iterator[None]:
    """Take it that jobs have a GPU of another machine, which this one cannot look at."""
    token = _elsewhere.set(there)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def choose(device: str, precision: str) -> tuple[torch.device, str]:
    """The device and the precision of a run.

    `auto` is CUDA, then MPS, then the CPU; as a precision it is tf32 on CUDA, else fp32. Raises `ConfigError` for a
    device that this machine lacks.
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
        raise ConfigError(f"`{device}` is no device. Type auto, cpu, cuda, cuda:1 or mps.") from None
    if missing or chosen.type not in ("cpu", "cuda", "mps"):
        count = torch.cuda.device_count() if chosen.type == "cuda" else 0
        raise ConfigError(
            f"trainer.device={device}: this machine has {counted(count, chosen.type + ' device')} "
            f"for torch {torch.__version__}. Type trainer.device=auto or trainer.device=cpu."
        )
    if precision == "auto":
        precision = "tf32" if chosen.type == "cuda" else "fp32"
    return chosen, precision


def choose_of_job(device: str, precision: str) -> tuple[torch.device, str]:
    """As `choose`, of a job that may run on another machine (`gpus_elsewhere`)."""
    if _elsewhere.get() and device in ("auto", "cuda"):
        return torch.device("cuda"), "tf32" if precision == "auto" else precision
    return choose(device, precision)


def autocast(device: torch.device, precision: str) -> tuple[str, torch.dtype] | None:
    """The arguments of `torch.autocast`; None without it."""
    return (device.type, torch.bfloat16) if precision == "bf16" else None


def threads_for(flop: int, device: torch.device) -> int:
    """CPU threads for a step of `flop` operations."""
    if device.type == "cpu" and flop < TINY_STEP:
        return 1
    return torch.get_num_threads()


def apply(execution: Execution) -> None:
    """Configure the process for `execution`."""
    torch.set_num_threads(execution.threads)
    keep_freed_memory()
    if execution.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if execution.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = execution.precision == "tf32"
        # it times kernels, and may choose another in the next run
        torch.backends.cudnn.benchmark = not execution.deterministic
    if execution.deterministic:
        # without it cuBLAS is not deterministic, and torch refuses to call it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if execution.deterministic != torch.are_deterministic_algorithms_enabled():
        # only where it changes something: the call imports torch._inductor, a second and more
        torch.use_deterministic_algorithms(execution.deterministic)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step."""
    # by default large blocks go back to the system at once, and each step pays for clearing and mapping them again:
    # half the time of a step over a vocabulary of 33,278 words
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # their numbers in malloc.h, the same for all of glibc
    with suppress(OSError, AttributeError):  # macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 64 << 20)):
            mallopt(parameter, size)


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed what it was given, as a clock needs it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        with suppress(OSError), Path("/proc/cpuinfo").open() as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return device.type
