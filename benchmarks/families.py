"""The cost of a command with all processes that it leaves behind: servers, jobs, uploaders."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.alternation import Cost
from benchmarks.commands import SHELL

PR_SET_CHILD_SUBREAPER = 36


def cost(command: Sequence[str], here: Path, **environment: str) -> Cost:
    """The wall seconds of a command, and the CPU seconds of it and all its descendants.

    This process adopts orphaned descendants (Linux) and waits for them, which gives it their times. Raises
    `RuntimeError` with the output if the command fails.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    kept = {name: value for name, value in os.environ.items() if name not in SHELL}
    before, tic = _used(), time.perf_counter()
    done = subprocess.run(command, cwd=here, env=kept | environment, capture_output=True, text=True)
    wall = time.perf_counter() - tic
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Cost(wall, _used() - before)


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
