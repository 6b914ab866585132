"""Whether compiling the steps of a run pays: a function of the run alone, so that a resumed run decides the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Choice:
    """Whether to compile, and why."""

    compile: bool
    why: str


def before(decided: Mapping[str, Any]) -> Choice | None:
    """Return what an earlier part of the run decided, if there was one."""
    return Choice(bool(decided["compile"]), str(decided.get("why", ""))) if "compile" in decided else None


def choose(
    asked: bool | str, params: Sequence[torch.Tensor], *, flop: int, steps: int | None, device: torch.device
) -> Choice:
    """Return whether to compile the `steps` steps (None: not known beforehand) of `flop` operations each.

    >>> weights = [torch.zeros(2, 2)] * 18
    >>> choose("auto", weights, flop=20_000, steps=1_000, device=torch.device("cpu")).compile
    False
    >>> choose("auto", weights, flop=20_000, steps=1_000_000, device=torch.device("cpu")).why
    'compiling saves about 316 s'
    """
    if asked != "auto":
        return Choice(asked is True, f"trainer.compile={str(asked).lower()}")
    if device.type != "cpu" or flop > TINY_STEP:
        return Choice(False, "a step is more arithmetic than calls" if device.type == "cpu" else "not on this device")
    if steps is None:
        return Choice(False, "the number of steps is not known")
    saved = (BASE + EACH * len(params)) * steps - COMPILING
    if saved < (MARGIN - 1) * COMPILING:
        return Choice(False, f"compiling would take about {COMPILING:.0f} s and save {max(saved + COMPILING, 0):.3g}")
    return Choice(True, f"compiling saves about {saved:.0f} s")
