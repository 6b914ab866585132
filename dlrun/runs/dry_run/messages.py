"""The messages of a dry run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from dlrun.engine.failures.explaining import LESS_IN_STEPS, describe_batch, is_out_of_memory
from dlrun.errors import DlrunError, RunError, UserError, place
from dlrun.terminal.format import counted
from dlrun.types import Batch


@contextmanager
def explain(
    batch: Batch, targets: Mapping[str, str], *names: str, model: object = None, doing: str = "", advice: str = ""
) -> Iterator[None]:
    """Turn any exception into a `UserError` about the named parts.

    `doing` is what failed, a first pass if it is not given; `advice` ends the message. An error that names the class of
    `model` is one of a loss that took it for outputs.
    """
    try:
        yield
    except DlrunError as error:
        # nothing has run yet: what an augmentation says of a picture is a mistake in the request
        if isinstance(error, RunError) and names == ("dataset",):
            raise UserError(str(error)) from error
        raise
    except Exception as error:
        parts = ", ".join(f"{name}={targets[name]}" for name in names if name in targets)
        if "loss" in names and _took_for_tensors(error, "Batch", type(model).__name__):
            advice = _about_losses(targets.get("loss", ""))
        elif isinstance(error, TypeError) and isinstance(batch.x, dict) and "OwnLoss" not in targets.get("loss", ""):
            advice = (
                "The model gets its inputs as one dict. If it takes them by name and returns its loss, type loss=own."
            )
        doing, problem = (
            doing or f"a first pass over {counted(batch.size, 'sample')}",
            "The parts do not fit together",
        )
        if is_out_of_memory(error):
            problem, advice = "There is too little memory", LESS_IN_STEPS
        raise UserError(
            f"{problem}: {doing} failed.\n"
            f"  {parts}\n  {describe_batch(batch)}\n"
            f"  {type(error).__name__}: {error}{place(error)}{advice and chr(10) + advice}"
        ) from error


def _about_losses(target: str) -> str:
    advice = "A loss is called with (model, batch): the outputs are model(batch.x), the targets batch.y."
    if target.startswith("dlrun."):
        return advice
    return f"{advice} One of outputs and targets: type loss=of_outputs loss.function._target_={target}"


def _took_for_tensors(error: Exception, *kinds: str) -> bool:
    """Was a tensor's operation given an object of one of these classes?"""
    said = str(error)
    lacks = re.fullmatch(r"'(\w+)' object has no attribute '(\w+)'", said)
    if lacks:
        return lacks[1] in kinds and hasattr(Tensor, lacks[2])
    found = re.findall(r"'(\w+)'|not (\w+)$", said)
    return isinstance(error, TypeError) and any(kind in pair for pair in found for kind in kinds)
