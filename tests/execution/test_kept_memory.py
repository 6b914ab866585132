"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import platform
import sys

import pytest

from tests import processes

PROGRAM = """
import resource, sys, torch
from dlrun.execution.device import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
model = torch.nn.Linear(64, 64)
x = torch.zeros(160_000, 64)
faults = []
for _ in range(14):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(x).relu().sum().backward()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults[7:])[3])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_a_step_maps_no_memory_that_the_step_before_it_had() -> None:
    def faults(how: str) -> int:
        done = processes.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    # an output of 41 MB is 10,000 pages, and there are three of them
    assert faults("freed") > 25_000
    assert faults("kept") < 100
