"""Programs in turn, round by round, so that drifts of the machine affect all of them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

from dlrun.terminal.output import HEARTBEAT

T = TypeVar("T")


class Cost(NamedTuple):
    """Wall seconds, and CPU seconds of all threads of the process."""

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """The cost of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(programs: Mapping[str, Callable[[], T]], repeats: int, *, warm_up: int = 1) -> dict[str, list[T]]:
    """The results of each program in `repeats` rounds, after `warm_up` rounds that do not count.

    Each round begins with another program (A B C, B C A, C A B, …), so that what a program leaves in memory and caches
    falls on each of the others. Progress is printed every 30 s.
    """
    printed = time.monotonic()
    results: dict[str, list[T]] = {name: [] for name in programs}
    names = list(programs)
    for repeat in range(-warm_up, repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            if time.monotonic() - printed > HEARTBEAT:
                printed = time.monotonic()
                print(f"  round {repeat + warm_up + 1} of {repeats + warm_up}: {name}", file=sys.stderr, flush=True)
            result = programs[name]()
            if repeat >= 0:
                results[name].append(result)
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours / theirs, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def added(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours - theirs, round by round."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], form: str = ".3g", unit: str = "") -> str:
    """The median, with the quartiles in brackets.

    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0], unit="s")
    '3 s (2 to 4, n = 5)'
    """
    middle = f"{median(values):{form}} {unit}".strip()
    if len(values) == 1:
        return f"{middle} (n = 1)"
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{middle} ({low:{form}} to {high:{form}}, n = {len(values)})"
