"""The energy counters of processor and memory (RAPL), as Linux shows them in /sys/class/powercap.

They count for the whole package, whoever uses it: a run is given the share that its processes have of the processor
time. Since 2020 only root may read them, unless `energy_uj` is made readable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PROC = Path("/proc")


class RaplCounter:
    """One counter, which begins anew at `max_energy_range_uj`."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` or `ValueError` if it cannot be read."""
        self.name = (folder / "name").read_text().strip()
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()

    def joules(self) -> float:
        """The joules since the last call; it must come before the counter has gone round twice."""
        now = self._read()
        # a counter that has begun anew stands below where it stood
        passed = now - self._last if now >= self._last else now - self._last + self._range
        self._last = now
        return passed / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


def find_counters(root: Path | None = None) -> list[RaplCounter]:
    """The readable counters of packages, and of memory that no package counts."""
    found = []
    for folder in sorted((root or POWERCAP).glob("intel-rapl:*")):
        # a zone `psys` holds the packages, the subzones `core` and `uncore` lie in one
        subzone = folder.name.count(":") > 1
        with suppress(OSError, ValueError):
            counter = RaplCounter(folder)
            if counter.name == "dram" if subzone else counter.name.startswith("package"):
                found.append(counter)
    return found


class CpuShare:
    """The share of the machine's busy processor time that this process and its children have."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or PROC
        self._own, self._all = self._seconds()

    def since_last(self) -> float:
        """The share since the last call; 0 if nothing was busy."""
        own, everyone = self._seconds()
        mine, busy = own - self._own, everyone - self._all
        self._own, self._all = own, everyone
        # a child that has ended takes its time with it; rounding may give one process more than all
        return min(1.0, max(0.0, mine / busy)) if busy > 0 else 0.0

    def _seconds(self) -> tuple[float, float]:
        ticks = os.sysconf("SC_CLK_TCK")
        # user, nice, system, idle, iowait, irq, softirq, steal
        fields = [int(n) for n in (self._root / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(fields) - sum(fields[3:5])
        return sum(self._ticks(pid) for pid in self._family(os.getpid())) / ticks, busy / ticks

    def _family(self, pid: int) -> Iterator[int]:
        yield pid
        for thread in (self._root / str(pid) / "task").glob("*/children"):
            with suppress(OSError, ValueError):  # it has ended
                for child in thread.read_text().split():
                    yield from self._family(int(child))

    def _ticks(self, pid: int) -> int:
        with suppress(OSError, ValueError, IndexError):
            # the name in brackets may hold blanks
            fields = (self._root / str(pid) / "stat").read_text().rpartition(")")[2].split()
            return sum(int(n) for n in fields[11:15])  # its own, and that of children it has waited for
        return 0
