"""Whether compiling the steps of a run pays: a function of the run alone, so that a resumed run decides the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dlrun.device import TINY_STEP

COMPILING = 12.0
"""Seconds of processor time that tracing and compiling a step took, of a polynomial and of a network of 18 tensors
alike (torch 2.13, two shared cores, busy; `python -m benchmarks.step --compile` measures it)."""
BASE, EACH = 40e-6, 16e-6
"""Seconds of a small step that are saved whatever the model, and for each of its parameters (a weight, a bias): of the
step of a polynomial 70 µs, of one of a network with 18 tensors 400 µs, more than nine tenths (one thread, idle)."""
MARGIN = 2.0
"""How many times its cost a saving has to be: the constants are those of one machine."""


class Choice(NamedTuple):
    """Whether to compile, and why."""

    compile: bool
    why: str


@dataclass(frozen=True)
class Work:
    """The steps of a run: how many (None: not known beforehand), of how many operations each, on what.

    `parameters` is how many weights, biases and so on the model has, each a tensor.
    """

    parameters: int
    flop: int
    steps: int | None
    device: torch.device


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
    if work.device.type != "cpu":
        return Choice(False, "not on this device")
    if work.flop > TINY_STEP:
        return Choice(False, "a step is more arithmetic than calls")
    if work.steps is None:
        return Choice(False, "the number of steps is not known")
    saved = (BASE + EACH * work.parameters) * work.steps - COMPILING
    if saved < (MARGIN - 1) * COMPILING:
        return Choice(False, f"compiling would take about {COMPILING:.0f} s and save {max(saved + COMPILING, 0):.3g}")
    return Choice(True, f"compiling saves about {saved:.0f} s")
