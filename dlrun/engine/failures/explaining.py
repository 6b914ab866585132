"""An exception of a user's part as one message: what was done, in which part, with which shapes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from dlrun.errors import DlrunError, RunError, place
from dlrun.losses.outputs import describe
from dlrun.types import Batch


def describe_batch(batch: Batch) -> str:
    """The types and shapes of a batch's inputs and targets."""
    return f"x: {describe(batch.x)}, y: {describe(batch.y)}"


def parts_of(run: Any) -> dict[str, object]:
    """The parts of a training by their kind, for `explain`."""
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


LESS_IN_STEPS = (
    "A smaller trainer.batch_size takes less memory; trainer.accumulate=2 does, with the same batches, "
    "trainer.activation_checkpointing=true with the same numbers."
)
LESS_IN_EVALUATIONS = "A smaller evaluation.batch_size takes less memory, with the same result."


@contextmanager
def explaining_evaluation(doing: str, parts: Mapping[str, object]) -> Iterator[None]:
    """Raise `RunError` for any exception of an evaluation but dlrun's own.

    `doing` begins its message, as "The validation after step 12". Notes that the exception carries, as the shapes of a
    batch, end it.
    """
    try:
        yield
    except DlrunError:
        raise
    except Exception as error:
        raise RunError(explain(error, doing, parts, advice=LESS_IN_EVALUATIONS)) from error


def explain(error: Exception, doing: str, parts: Mapping[str, object], *, advice: str = LESS_IN_STEPS) -> str:
    """A message of several lines for an exception.

    It names the part that failed. `advice` is given where memory was too small.
    """
    part = blame(error, parts)
    lines = [
        f"{doing} failed{f' in the {part}' if part else ''}: {type(error).__name__}: {error}{place(error)}",
        *(f"  {note}" for note in getattr(error, "__notes__", [])),
    ]
    return "\n".join([*lines, advice] if is_out_of_memory(error) else lines)


def is_out_of_memory(error: BaseException) -> bool:
    """True where a device or the machine had too little memory."""
    # on a CPU, on MPS and in NVIDIA's libraries torch raises a plain RuntimeError
    known = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in known)
    )


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
