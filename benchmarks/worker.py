"""One program of `benchmarks/peers/` in a process of its own: `python -m benchmarks.worker PROGRAM WORK`.

It trains twice and prints the second time as a line of JSON: seconds and page faults of a step, seconds of the whole,
peak memory. WORK is a file of `works.save`; without it, one tiny step is trained and nothing printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import works
from benchmarks.peers.watch import Watch


def once(program: Any, work: works.Work) -> dict[str, float]:
    """Train a work once and measure it."""
    watch = Watch(every=max(1, work.steps // 30))
    began = time.perf_counter()
    more = program.train(work, watch) or {}
    whole = time.perf_counter() - began
    return {**watch.each(), "whole": whole, "megabytes": peak_megabytes(), **more}


def peak_megabytes() -> float:
    """The peak memory of this process in MiB.

    `getrusage` is no source on Linux: it would give the parent's peak if that was larger.
    """
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def main(name: str, path: str | None = None) -> None:
    program: Any = import_module(f"benchmarks.peers.{name}")
    if path is None:
        program.train(works.tiny(), Watch())
        return
    work = works.load(Path(path))
    torch.set_num_threads(work.threads or len(os.sched_getaffinity(0)))
    with contextlib.redirect_stdout(sys.stderr):  # the standard output is for the JSON line
        once(program, work)
        answer = once(program, work)
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
