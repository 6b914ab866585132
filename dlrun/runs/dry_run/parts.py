"""Parts tried each for itself: the schedule, the tokenizer, a model that walks along a text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import nn

from dlrun.config.instantiate import make_tokenizer
from dlrun.engine.evaluation import ContiguousWindows, evaluating
from dlrun.engine.forward.totals import loss_total, mean_of_totals
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError, DlrunError, UserError, place
from dlrun.tokenizers.description import describe
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import Data, Schedule, Split

SOME = 8
"""Samples of the loss before the first step."""


def first_loss(objective: Objective, split: Split, *, device: torch.device) -> float:
    """The mean loss over 8 evenly spaced samples."""
    index = torch.linspace(0, len(split) - 1, min(SOME, len(split))).round().long()
    batch = split.gather(index.to(device)).to(device)
    with evaluating(objective), objective.precision():
        return mean_of_totals([loss_total(objective.loss, objective.model, batch)])


def check_schedule(schedule: Schedule, steps: int, *, target: str) -> None:
    """Raise `UserError` unless a schedule's first and last factor are finite."""
    # the ends are the likely places of a division by zero
    for step in (0, steps - 1):
        try:
            factor: Any = schedule(step, steps)
        except DlrunError:
            raise
        except Exception as error:
            raise UserError(
                f"schedule: {target}({step}, {steps}) failed: {type(error).__name__}: {error}{place(error)}\n"
                f"A schedule is a function of (step, steps) that returns the factor of the learning rate."
            ) from error
        if not isinstance(factor, int | float) or not isfinite(factor):
            raise ConfigError(
                f"schedule: {target}({step}, {steps}) returned {factor!r}; expected a finite number, the factor "
                f"of the learning rate."
            )


def check_tokenizer(data: Data, trusted: Sequence[str]) -> None:
    """Raise `ConfigError` for a user's tokenizer unless `load(content())` equals it."""
    given = data.tokenizer
    both = [given.source, given.target] if isinstance(given, PairTokenizer) else [given]
    for tokenizer in both:
        # only a user's tokenizer is described by its class
        if tokenizer is None or "class" not in (kept := describe(tokenizer)):
            continue
        again = make_tokenizer(kept, trusted=trusted)
        if describe(again) != kept or again.size != tokenizer.size:
            raise ConfigError(
                f"{kept['class']}.load(content) returns another tokenizer than the one whose content() it was given"
                f" (of {again.size} tokens, expected {tokenizer.size}): `dlrun sample` would write something else."
            )


def check_walk(model: nn.Module, data: Data) -> None:
    """Raise `ConfigError` if `dataset.streams` meets a model without unbounded memory."""
    if not any(isinstance(split, ContiguousWindows) for split in (data.train, data.validation, data.test)):
        return
    if not hasattr(model, "step") or getattr(model, "context", None) is not None:
        raise ConfigError(
            f"dataset.streams is given, for models that remember a text from its beginning on; {type(model).__name__} "
            f"sees no further than its window. Leave dataset.streams out, or choose one that does, as model=lstm."
        )


def init_optimizer(optimizer: Optimizer, objective: Objective, target: str) -> None:
    """Have the optimizer allocate its state; raises `UserError` for whatever goes wrong in it."""
    try:
        optimizer.init(objective)
    except DlrunError:
        raise
    except Exception as error:
        raise UserError(
            f"optimizer={target} cannot be used with this model: {type(error).__name__}: {error}{place(error)}"
        ) from error
