"""One thread a process that reads the energy counters: all runs of the process share it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import torch

from dlrun.execution.energy import nvml, rapl

INTERVAL = 5.0
"""Seconds between two samples. A counter of RAPL goes round in some minutes at full power."""


class Counter(Protocol):
    """A counter of energy."""

    name: str

    def joules(self) -> float:
        """The joules since the last call."""


class Sampler:
    """The joules of this process so far, kept up to date by a thread of its own."""

    def __init__(self, whole: Sequence[Counter], shared: Sequence[Counter] = (), share: rapl.CpuShare | None = None):
        """Of `shared` counters this process has its `share`, of `whole` ones all."""
        self._whole, self._shared, self._share = whole, shared, share
        self._joules = 0.0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    @property
    def source(self) -> str:
        """What the joules are of, in words."""
        whole = [f"{counter.name} (NVML)" for counter in self._whole]
        shared = ", ".join(counter.name for counter in self._shared)
        return "; ".join([*whole, *([f"{shared} (RAPL), by the share of processor time"] if shared else [])])

    @property
    def joules(self) -> float:
        """The joules at the last sample: reading it costs nothing."""
        return self._joules

    def sample(self) -> float:
        """Read the counters now; returns the joules so far."""
        with self._lock:
            self._joules += sum(map(_since_last, self._whole))
            if self._shared and self._share:
                with suppress(OSError, ValueError):
                    self._joules += self._share.since_last() * sum(map(_since_last, self._shared))
        return self._joules

    def close(self) -> None:
        self._ended.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            self.sample()


def _since_last(counter: Counter) -> float:
    # what fails once is read with the next sample, and takes nothing of the other counters with it
    try:
        return counter.joules()
    except (OSError, ValueError):
        return 0.0


_open: dict[str, tuple[Sampler, int]] = {}
"""The samplers in use by device, and their users: a stack of runs has one sampler, not one each."""


@contextmanager
def sampling(device: torch.device) -> Iterator[Sampler | None]:
    """Yield the device's sampler; None where nothing tells the energy.

    A GPU needs its own counter; that of the processor is added where it can be read.
    """
    key = str(device)
    sampler, users = _open.get(key) or (_make(device), 0)
    if sampler is None:
        yield None
        return
    _open[key] = sampler, users + 1
    try:
        yield sampler
    finally:
        sampler, users = _open.pop(key)
        if users > 1:
            _open[key] = sampler, users - 1
        else:
            sampler.close()


def _make(device: torch.device) -> Sampler | None:
    if device.type not in ("cpu", "cuda"):
        return None
    gpu = nvml.find_counter(device) if device.type == "cuda" else None
    if device.type == "cuda" and gpu is None:
        return None  # the processor's energy is the smaller part of such a run's
    counters = rapl.find_counters()
    if gpu is None and not counters:
        return None
    try:
        share = rapl.CpuShare() if counters else None
    except (OSError, ValueError):
        counters, share = [], None
    return Sampler([gpu] if gpu else [], counters, share) if gpu or counters else None
