"""Programs side by side: each in turn, again and again, so that a machine's mood falls on all of them alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

from dlrun.terminal.output import HEARTBEAT

T = TypeVar("T")


class Cost(NamedTuple):
    """What a piece of work took: seconds on the wall, and seconds of all the process's threads."""

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """Return what one call of `work` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def alternate(programs: Mapping[str, Callable[[], T]], repeats: int, *, warm_up: int = 1) -> dict[str, list[T]]:
    """Return what each program returned in each of `repeats` rounds; the rounds of the warm-up do not count.

    Each round begins with another program, A B C, B C A, C A B, …: what a program leaves behind in
    memory and caches falls on each of the others alike. What takes long says every 30 s how far it is.
    """
    told = time.monotonic()
    results: dict[str, list[T]] = {name: [] for name in programs}
    names = list(programs)
    for repeat in range(-warm_up, repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            if time.monotonic() - told > HEARTBEAT:
                told = time.monotonic()
                print(f"  round {repeat + warm_up + 1} of {repeats + warm_up}: {name}", file=sys.stderr, flush=True)
            result = programs[name]()
            if repeat >= 0:
                results[name].append(result)
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours / theirs, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def added(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours - theirs, round by round."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], form: str = ".3g", unit: str = "") -> str:
    """Return the median, and the quartiles in brackets.

    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0], unit="s")
    '3 s (2 to 4, n = 5)'
    """
    middle = f"{median(values):{form}} {unit}".strip()
    if len(values) == 1:
        return f"{middle} (n = 1)"
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{middle} ({low:{form}} to {high:{form}}, n = {len(values)})"
