"""Does compiling the steps of a run pay? A function of the run alone, so that a resumed run decides the same.

On a CPU a program is compiled: that takes seconds, and gains where the steps are tiny. On a GPU graphs are recorded:
that takes less than a second and about a hundred steps, and gains the time of the operators' calls, whatever the size
of a step (beside a large one they are a small part, hidden behind the arithmetic). The constants of recording are
estimates: no GPU has measured them yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dlrun.execution.device import TINY_STEP

COMPILING = 12.0
"""Seconds of processor time that tracing and compiling a step takes, for a polynomial and a network of 18 tensors
alike (torch 2.13, two shared cores, busy; `python -m benchmarks.step --compile` measures it)."""
BASE, EACH = 40e-6, 16e-6
"""Seconds that a compiled small step saves: for any model, and for each parameter (a weight, a bias). Of the step of
a polynomial 70 µs, of one of a network with 18 tensors 400 µs, more than nine tenths (one thread, idle)."""
RECORDING, STEPS = 1.0, 100
"""Seconds that recording CUDA graphs takes at most, and the steps that are taken for it. Not measured."""
LAUNCHES, LAUNCHES_EACH = 100e-6, 40e-6
"""`BASE` and `EACH` on a GPU: some eight launches for a parameter, each about 5 µs. Not measured."""
MARGIN = 2.0
"""The least ratio of a saving to its cost: the constants are those of one machine."""


class CompileDecision(NamedTuple):
    """Compile or not, and the reason."""

    compile: bool
    why: str


@dataclass(frozen=True)
class StepProfile:
    """The number of a run's steps, and their size.

    `steps` is None if the number is not known beforehand; `flop` are the operations of a step. `parameters` counts the
    model's tensors: weights, biases and so on. `why_not` is the reason why the steps cannot be one program, if there is
    one.
    """

    parameters: int
    flop: int
    steps: int | None
    device: torch.device
    why_not: str | None = None


def decide(requested: bool | str, profile: StepProfile, *, before: Mapping[str, Any]) -> CompileDecision:
    """Decide for `auto`; otherwise as requested.

    A resumed run decides as `before`, its summary's `execution`.

    >>> few, many = (StepProfile(18, flop=20_000, steps=n, device=torch.device("cpu")) for n in (1_000, 1_000_000))
    >>> decide("auto", few, before={}).compile
    False
    >>> decide("auto", many, before={}).why
    'compiling saves about 316 s'
    """
    if requested != "auto":
        return CompileDecision(requested is True, f"trainer.compile={str(requested).lower()}")
    if "compile" in before:  # compiled steps round differently: a resumed run goes on as it began
        return CompileDecision(bool(before["compile"]), str(before.get("why", "as before")))
    if profile.why_not is not None:
        return CompileDecision(False, profile.why_not)
    if profile.steps is None:
        return CompileDecision(False, "the number of steps is not known")
    return _recording(profile, profile.steps) if profile.device.type == "cuda" else _compiling(profile, profile.steps)


def _compiling(profile: StepProfile, steps: int) -> CompileDecision:
    if profile.flop > TINY_STEP:
        return CompileDecision(False, "a step is more arithmetic than calls")
    saved = (BASE + EACH * profile.parameters) * steps - COMPILING
    if saved < (MARGIN - 1) * COMPILING:
        return CompileDecision(
            False, f"compiling would take about {COMPILING:.0f} s and save {max(saved + COMPILING, 0):.3g}"
        )
    return CompileDecision(True, f"compiling saves about {saved:.0f} s")


def _recording(profile: StepProfile, steps: int) -> CompileDecision:
    saved = (LAUNCHES + LAUNCHES_EACH * profile.parameters) * (steps - STEPS)
    # large steps gain little: recording must not be a noticeable part of so few
    if saved < MARGIN * RECORDING or steps < 20 * STEPS:
        return CompileDecision(False, f"recording would take about {RECORDING:.0f} s and save {max(saved, 0):.3g}")
    return CompileDecision(True, f"recording saves about {saved:.0f} s")
