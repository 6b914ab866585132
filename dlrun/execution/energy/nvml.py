"""The energy of an NVIDIA GPU, from the driver's library (NVML), which is called directly: no package is needed."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"


class NvmlCounter:
    """A GPU's energy since the driver was loaded; of GPUs before Volta, its power over time."""

    def __init__(self, library: Any, uuid: str) -> None:
        """Raises `OSError` if the GPU tells neither."""
        self.name = "GPU"
        self._library, self._handle = library, ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self._handle))
        self._power: tuple[float, float] | None = None
        try:
            self._last = self._energy()
        except OSError:
            self._power = (time.monotonic(), self._watts())

    def joules(self) -> float:
        """The joules since the last call."""
        if self._power is None:
            now = self._energy()
            # a driver that was loaded again counts from zero
            passed, self._last = max(0.0, now - self._last), now
            return passed
        (then, before), (now, watts) = self._power, (time.monotonic(), self._watts())
        self._power = (now, watts)
        return (now - then) * (before + watts) / 2

    def _energy(self) -> float:
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    def _watts(self) -> float:
        milliwatts = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._handle, ctypes.byref(milliwatts))
        return milliwatts.value / 1e3

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise OSError(f"{name} returned {code}")


def find_counter(device: torch.device) -> NvmlCounter | None:
    """The counter of a CUDA device; None if its driver has none."""
    # the number of a device is CUDA's own, the UUID is the driver's too
    with suppress(OSError, AttributeError):
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return NvmlCounter(ctypes.CDLL(LIBRARY), uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    return None
