"""The slots in which jobs run: the places on the GPUs, else the cores of the processor, shared out.

A place on a GPU belongs to one job on the whole machine: a file lock in the cache folder says whose,
and the kernel gives it back however the job ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from dlrun.datasets.files.cache import cache_root
from dlrun.errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time.

    `device` is what the job's CUDA_VISIBLE_DEVICES gets (None: it stays as it is), `place` tells the
    slots of one device apart.
    """

    index: int
    device: str | None
    threads: int
    place: int = 0

    def __str__(self) -> str:
        """Return the slot as a person reads it."""
        return f"slot {self.index}" if self.device is None else f"slot {self.index} (GPU {self.device})"


def slots_for(
    jobs: int, *, device: str, jobs_per_gpu: int = 1, slots: int | None = None, threads: int | None = None
) -> list[Slot]:
    """Return the slots for `jobs` jobs, at most one each.

    On GPUs (`device` is cuda, or auto where there are any) `jobs_per_gpu` slots each; on the CPU as
    many as there are cores for `threads` threads each, or for one. `slots` and `threads` settle either.

    >>> [slot.threads for slot in slots_for(2, device="cpu", slots=2, threads=1)]
    [1, 1]

    Raises `ConfigError` for what are no whole numbers, or are below one.
    """
    for name, value in (("jobs_per_gpu", jobs_per_gpu), ("slots", slots), ("threads", threads)):
        if value is not None:
            check_count(name, value)
    devices = gpus() if device in ("auto", "cuda") else []
    if devices:
        # the first place of each GPU, then the second: few jobs are spread over all of them
        places: list[tuple[str | None, int]] = [(name, place) for place in range(jobs_per_gpu) for name in devices]
    else:
        places = [(None, 0)] * _on_the_cpu(device, slots, threads)
    count = max(1, min(jobs, len(places), slots or len(places)))
    share = threads or max(1, cores() // count)
    return [Slot(index, name, share, place) for index, (name, place) in enumerate(places[:count])]


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Return a setting of the launcher that counts something; raise `ConfigError` if it is no such number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"hydra.launcher.{name}={value}: expected a whole number, at least {least}. "
            f"Type for example hydra.launcher.{name}=2."
        )
    return value


def _on_the_cpu(device: str, slots: int | None, threads: int | None) -> int:
    """Return how many jobs may run at once where no GPU is shared out."""
    if slots:
        return slots
    # one named GPU (cuda:1), or Apple's: one job at a time
    return max(1, cores() // (threads or 1)) if device in ("auto", "cpu") else 1


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them; CUDA is not initialised."""
    # torch takes a second to import: not where the kernel knows of no GPU that it could use (NVIDIA, WSL, AMD)
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "dxg", "kfd")):
        return []
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in given.split(",")] if given is not None else [str(i) for i in range(count)]
    return names[:count]


class SlotLock:
    """The hold on a slot's place: kept by whoever has a copy, the job's process among them."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give up this copy of the hold."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __reduce__(self) -> tuple[Any, ...]:
        # only within the making of a process, which it goes with
        return _arrived, (None if self._descriptor is None else reduction.DupFd(self._descriptor),)


def _arrived(duplicate: Any) -> SlotLock:
    return SlotLock(None if duplicate is None else duplicate.detach())


def lock(slot: Slot) -> SlotLock | None:
    """Return the hold on the slot's place on its GPU, or None if another job of this machine has it.

    A slot of the CPU has no place that others could have.
    """
    if slot.device is None:
        return SlotLock(None)
    folder = cache_root() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", slot.device)
    descriptor = os.open(folder / f"{name}-{slot.place}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return SlotLock(descriptor)
