"""Two finished runs compared bit for bit: weights, optimizer, state, curves and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from dlrun.storage import checkpoint, journal
from dlrun.storage.rundir import RunDir

TIMED = ("throughput/", "cost/", "memory/", "system/")
"""Metrics that measure the machine, not the run."""


def differences(a: RunDir, b: RunDir) -> Iterator[str]:
    """Yield a line for each difference of two finished runs.

    A line has both values, or the largest distance of two tensors.
    """
    for name in ("last", "best"):
        yield from _compare(
            f"checkpoints/{name}.pt", checkpoint.read(getattr(a, name)), checkpoint.read(getattr(b, name))
        )
    yield from _compare("journal", _repeatable(journal.curves(a.journal)), _repeatable(journal.curves(b.journal)))
    one, other = a.summary(), b.summary()
    for name in ("metrics", "last", "best_step", "steps"):
        yield from _compare(f"summary.{name}", getattr(one, name), getattr(other, name))


def _repeatable(curves: dict[str, Any]) -> dict[str, Any]:
    return {name: curve for name, curve in curves.items() if not name.startswith(TIMED)}


def _compare(where: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        # by bytes: equal NaNs are equal, 0.0 and -0.0 are not
        elif not torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
            yield f"{where}: by at most {float((a.double() - b.double()).abs().max()):.3g}"
    elif isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys([*a, *b]):
            # time measures the machine, not the run
            if name != "train_seconds":
                yield from _compare(f"{where}: {name}", a.get(name), b.get(name))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for position, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _compare(f"{where}[{position}]", left, right)
    elif a != b and not (a != a and b != b):  # NaN in both is no difference
        yield f"{where}: {a} and {b}"
