"""An exception of a user's part as one message: what was done, in which part, with which shapes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import DlrunError, RunError, place
from dlrun.types import Batch


def describe(value: Any) -> str:
    """The type and shape of a value.

    >>> describe((torch.zeros(2, 3), 4))
    '(a tensor float32 [2, 3], a int)'
    """
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(describe, value))})"
    return f"a {type(value).__name__}"


def describe_batch(batch: Batch) -> str:
    """The types and shapes of a batch's inputs and targets."""
    return f"x: {describe(batch.x)}, y: {describe(batch.y)}"


def parts_of(run: Any) -> dict[str, object]:
    """The parts of a training by their kind, for `explaining`."""
    objective, optimizer = run.objective, run.optimizer
    found = {
        "model": objective.model,
        "loss": getattr(objective, "loss", None),
        "optimizer": getattr(optimizer, "rule", optimizer),
        "schedule": getattr(run, "schedule", None),
        "data set": getattr(run.batches, "split", None),
        "augmentation": getattr(run.batches, "augment", None),
    }
    metrics = {f"metric {name}": metric for name, metric in getattr(run, "metrics", {}).items()}
    return {name: part for name, part in (found | metrics).items() if part is not None}


@contextmanager
def explaining(doing: str, parts: Mapping[str, object]) -> Iterator[None]:
    """Raise `RunError` for any exception but dlrun's own.

    `doing` begins its message, as "Step 12". Notes that the exception carries, as the shapes of a batch, end it.
    """
    try:
        yield
    except DlrunError:
        raise
    except Exception as error:
        raise RunError(explain(error, doing, parts)) from error


def explain(error: Exception, doing: str, parts: Mapping[str, object]) -> str:
    """The message of an exception: what failed, where, and what to do about too little memory."""
    part = blame(error, parts)
    lines = [
        f"{doing} failed{f' in the {part}' if part else ''}: {type(error).__name__}: {error}{place(error)}",
        *(f"  {note}" for note in getattr(error, "__notes__", [])),
    ]
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        lines.append("A smaller trainer.batch_size takes less memory, or trainer.accumulate=2, with the same result.")
    return "\n".join(lines)


def blame(error: BaseException, parts: Mapping[str, object]) -> str:
    """The part whose code was running, as its kind and name; the innermost if one calls another.

    >>> model = nn.Linear(2, 3)
    >>> try:
    ...     model(torch.ones(5))
    ... except RuntimeError as error:
    ...     blame(error, {"loss": blame, "model": model})
    'model `Linear`'
    """
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        for kind, part in parts.items():
            inner = part.func if isinstance(part, partial) else part
            if _runs(frame.f_code, owner, inner):
                found = f"{kind} `{getattr(inner, '__name__', type(inner).__name__)}`"
    return found


def _runs(code: Any, owner: object, part: object) -> bool:
    if isinstance(part, nn.Module) and isinstance(owner, nn.Module):
        return any(module is owner for module in part.modules())
    return owner is part or getattr(part, "__code__", None) is code
