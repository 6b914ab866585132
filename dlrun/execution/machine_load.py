"""How busy the machine is (`tracking.system_metrics`), sampled where a training point is logged."""

from __future__ import annotations

import importlib
import importlib.util
import time
from typing import Any

import torch

# seconds between two samples: one takes a tenth of a millisecond
INTERVAL = 1.0
MEGA = 1e6


class MachineLoad:
    """Samples of processor and memory, under the names that MLflow gives them.

    A percentage of the processors is a mean since the last sample. Without the package psutil there are no samples.
    """

    def __init__(self, device: torch.device) -> None:
        self._psutil: Any = importlib.import_module("psutil") if importlib.util.find_spec("psutil") else None
        self._device = device
        self._sampled = -INTERVAL
        if self._psutil:
            self._psutil.cpu_percent()  # the first call has no span to measure over

    def sample(self) -> dict[str, float]:
        """The values now; empty until a second has passed since the last ones."""
        now = time.monotonic()
        if self._psutil is None or now - self._sampled < INTERVAL:
            return {}
        self._sampled = now
        memory = self._psutil.virtual_memory()
        found = {
            "system/cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / MEGA,
            "system/system_memory_usage_percentage": memory.percent,
        }
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            found["system/gpu_0_memory_usage_megabytes"] = (total - free) / MEGA
        return {name: float(value) for name, value in found.items()}
