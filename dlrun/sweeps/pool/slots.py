"""The slots in which jobs run: places on the GPUs, or else cores shared out.

A place on a GPU belongs to one job of the whole machine. A file lock in the cache folder says so, and the kernel
releases it however the job ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from dlrun.errors import ConfigError
from dlrun.storage.files.cache import cache_root
from dlrun.storage.files.waiting import pause
from dlrun.terminal import output

WAIT = 0.25
"""Seconds between two looks for a free slot."""


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time.

    `device` becomes CUDA_VISIBLE_DEVICES (None: unchanged); `place` numbers the slots of one device.
    """

    index: int
    device: str | None
    threads: int
    place: int = 0

    def __str__(self) -> str:
        return f"slot {self.index}" if self.device is None else f"slot {self.index} (GPU {self.device})"


def slots_for(
    jobs: int, *, device: str, jobs_per_gpu: int = 1, slots: int | None = None, threads: int | None = None
) -> list[Slot]:
    """The slots for `jobs` jobs, at most one each.

    On GPUs (`device` is cuda, or auto where there are any) `jobs_per_gpu` slots each. On the CPU as many as there are
    cores for `threads` threads each, or for one. `slots` is the most on either.

    >>> [slot.threads for slot in slots_for(2, device="cpu", slots=2, threads=1)]
    [1, 1]

    Raises `ConfigError` for a number below one, or one that is not whole.
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
    """The value; raises `ConfigError` unless whole and at least `least`."""
    # True is an int in Python
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"hydra.launcher.{name}={value}: expected a whole number, at least {least}. "
            f"Type for example hydra.launcher.{name}=2."
        )
    return value


def _on_the_cpu(device: str, slots: int | None, threads: int | None) -> int:
    if slots:
        return slots
    # one named GPU (cuda:1), or Apple's: one job at a time
    return max(1, cores() // (threads or 1)) if device in ("auto", "cpu") else 1


def cores() -> int:
    """The number of processors for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs of this process, by their names in CUDA_VISIBLE_DEVICES."""
    # torch takes a second to import: not if the kernel has none of its devices (NVIDIA, WSL, AMD)
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "dxg", "kfd")):
        return []
    import torch

    # this does not initialise CUDA
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA counts within CUDA_VISIBLE_DEVICES, so `cuda:0` may be GPU 3
    names = [name.strip() for name in given.split(",")] if given is not None else [str(i) for i in range(count)]
    return names[:count]


class SlotLock:
    """A slot's lock, held while any process has a copy."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Close this copy."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __reduce__(self) -> tuple[Any, ...]:
        # pickled only while a process starts, which inherits the descriptor
        return _receive, (None if self._descriptor is None else reduction.DupFd(self._descriptor),)


def _receive(duplicate: Any) -> SlotLock:
    return SlotLock(None if duplicate is None else duplicate.detach())


def lock(slot: Slot) -> SlotLock | None:
    """Lock a slot's place on its GPU; None if taken."""
    if slot.device is None:  # cores are not locked
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


@contextmanager
def hold(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Hold the first free slot, waiting if all are taken.

    On a GPU `cuda` means the slot's GPU meanwhile.
    """
    waits = False
    while (free := next(((slot, held) for slot in slots if (held := lock(slot))), None)) is None:
        if not waits:
            output.say("waiting for a GPU: other dlrun jobs of this machine have them all")
        waits = True
        pause(WAIT)
    slot, held = free
    with ExitStack() as stack:
        stack.callback(held.release)
        if slot.device is not None:
            import torch  # it takes a second

            stack.enter_context(torch.cuda.device(gpus().index(slot.device)))
        yield slot
