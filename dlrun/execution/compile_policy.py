"""Whether compiling the steps of a run pays: a function of the run alone, so that a resumed run decides the same.

On a CPU a program is compiled, which takes seconds and gains where the steps are tiny. On a GPU graphs are recorded,
which takes less than a second and about a hundred steps, and gains what the calls of operators take, whatever the size
of a step (of a large one they are a small part, hidden behind the arithmetic). No GPU has run this yet: the constants
of recording are estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dlrun.execution.device import TINY_STEP

COMPILING = 12.0
"""Seconds of processor time that tracing and compiling a step took, of a polynomial and of a network of 18 tensors
alike (torch 2.13, two shared cores, busy; `python -m benchmarks.step --compile` measures it)."""
BASE, EACH = 40e-6, 16e-6
"""Seconds of a small step that are saved whatever the model, and for each of its parameters (a weight, a bias): of the
step of a polynomial 70 µs, of one of a network with 18 tensors 400 µs, more than nine tenths (one thread, idle)."""
RECORDING, STEPS = 1.0, 100
"""Seconds that recording CUDA graphs takes at most, and the steps that are taken for it. Not measured."""
LAUNCHES, LAUNCHES_EACH = 100e-6, 40e-6
"""As `BASE` and `EACH`, on a GPU: some eight launches for a parameter, each about 5 µs. Not measured."""
MARGIN = 2.0
"""How many times its cost a saving has to be: the constants are those of one machine."""


class Choice(NamedTuple):
    """Whether to compile, and why."""

    compile: bool
    why: str


@dataclass(frozen=True)
class Work:
    """The steps of a run: how many (None: not known beforehand), of how many operations each, on what.

    `parameters` is how many weights, biases and so on the model has, each a tensor. `against` says why the steps cannot
    be one program, if that is known beforehand.
    """

    parameters: int
    flop: int
    steps: int | None
    device: torch.device
    against: str | None = None


def choose(asked: bool | str, work: Work, *, before: Mapping[str, Any]) -> Choice:
    """Return whether to compile the steps; what `auto` stands for is as it was in an earlier part of the run.

    >>> few, many = (Work(18, flop=20_000, steps=n, device=torch.device("cpu")) for n in (1_000, 1_000_000))
    >>> choose("auto", few, before={}).compile
    False
    >>> choose("auto", many, before={}).why
    'compiling saves about 316 s'
    """
    if asked != "auto":
        return Choice(asked is True, f"trainer.compile={str(asked).lower()}")
    if "compile" in before:
        return Choice(bool(before["compile"]), str(before.get("why", "as before")))
    if work.against is not None:
        return Choice(False, work.against)
    if work.steps is None:
        return Choice(False, "the number of steps is not known")
    return _recording(work, work.steps) if work.device.type == "cuda" else _compiling(work, work.steps)


def _compiling(work: Work, steps: int) -> Choice:
    if work.flop > TINY_STEP:
        return Choice(False, "a step is more arithmetic than calls")
    saved = (BASE + EACH * work.parameters) * steps - COMPILING
    if saved < (MARGIN - 1) * COMPILING:
        return Choice(False, f"compiling would take about {COMPILING:.0f} s and save {max(saved + COMPILING, 0):.3g}")
    return Choice(True, f"compiling saves about {saved:.0f} s")


def _recording(work: Work, steps: int) -> Choice:
    saved = (LAUNCHES + LAUNCHES_EACH * work.parameters) * (steps - STEPS)
    # of large steps, which gain little, it shall not be a part that is noticed
    if saved < MARGIN * RECORDING or steps < 20 * STEPS:
        return Choice(False, f"recording would take about {RECORDING:.0f} s and save {max(saved, 0):.3g}")
    return Choice(True, f"recording saves about {saved:.0f} s")
