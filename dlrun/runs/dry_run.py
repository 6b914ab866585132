"""A run's parts tried together on a few samples, before anything is trained.

Parts that do not fit (a model and its inputs, a loss and its targets, a metric that returns no sum and count) fail
here, with one message, and not after the first epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.config.instantiate import make_tokenizer
from dlrun.engine.evaluation import ContiguousWindows, evaluating, loss_total
from dlrun.engine.forward_cache import cache_forward
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, DlrunError, UserError, place
from dlrun.execution.flops import count_flops
from dlrun.tokenizers.description import describe
from dlrun.types import Batch, Data, Metric, Schedule, Split

FEW = 2
"""Samples of a dry run."""
SOME = 8
"""Samples of the loss before the first step."""


def dry_run(
    objective: Objective,
    split: Split,
    metrics: Mapping[str, Metric],
    *,
    device: torch.device,
    targets: Mapping[str, str],
) -> float:
    """Take one forward and backward pass; returns the FLOP of a sample.

    Computes every metric too. `targets` are the parts' `_target_`s, for the messages. The model is left as it was.
    Raises `UserError` for parts that do not fit together.
    """
    few = min(FEW, len(split))
    buffers = {name: buffer.clone() for name, buffer in objective.model.named_buffers()}
    try:
        x, y = split.gather(torch.arange(few, device=device))
        batch = Batch(x.to(device), y.to(device))
        with explain(batch, targets, "dataset", "model", "loss"):
            _differentiate(objective, batch)
        # under the cache, as in an evaluation: what fails there fails here
        model = objective.model
        with evaluating(model), objective.precision(), cache_forward(model):
            with explain(batch, targets, "dataset", "model", "loss"):
                loss_total(objective, model, batch)
            for name, metric in metrics.items():
                with explain(batch, targets, "dataset", "model", f"metrics.{name}"):
                    _check_metric(metric(model, batch))
        return count_flops(objective, batch) / few
    finally:
        # a batch norm has counted the passes
        for name, buffer in objective.model.named_buffers():
            buffer.copy_(buffers[name])


def first_loss(objective: Objective, split: Split, *, device: torch.device) -> float:
    """The mean loss over 8 evenly spaced samples."""
    index = torch.linspace(0, len(split) - 1, min(SOME, len(split))).round().long()
    x, y = split.gather(index.to(device))
    with evaluating(objective.model), objective.precision():
        total, count = loss_total(objective, objective.model, Batch(x.to(device), y.to(device)))
    return float(total) / float(count)


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
    # only a user's tokenizer is described by its class
    if data.tokenizer is None or "class" not in (kept := describe(data.tokenizer)):
        return
    again = make_tokenizer(kept, trusted=trusted)
    if describe(again) != kept or again.size != data.tokenizer.size:
        raise ConfigError(
            f"{kept['class']}.load(content) returns another tokenizer than the one whose content() it was given"
            f" (of {again.size} tokens, expected {data.tokenizer.size}): `dlrun sample` would write something else."
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


def _differentiate(objective: Objective, batch: Batch) -> None:
    with objective.precision():
        values: Any = objective.loss(objective.model, batch)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"the loss is {_kind(values)}; expected a float tensor: one value a sample, or their mean")
    if values.ndim and len(values) != len(batch.x):
        raise TypeError(f"the loss is {_kind(values)} for {len(batch.x)} samples; expected one value a sample")
    # a model without parameters has no gradient to try
    if not objective.params:
        return
    if not values.requires_grad:
        raise TypeError("the loss does not depend on the model's parameters (was it detached, or made a number?)")
    # unlike `backward`, leaves no `.grad` behind
    torch.autograd.grad(objective(batch), objective.params, allow_unused=True)


def _check_metric(found: Any) -> None:
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], Tensor) or found[0].numel() != 1:
        raise TypeError(f"it returned {_kind(found)}; expected a sum, as a tensor, and how many it was summed over")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_kind, value))})"
    return f"a {type(value).__name__}"


@contextmanager
def explain(batch: Batch, targets: Mapping[str, str], *names: str) -> Iterator[None]:
    """Turn any exception into a `UserError` about the named parts."""
    try:
        yield
    except DlrunError:
        raise
    except Exception as error:
        parts = ", ".join(f"{name}={targets[name]}" for name in names if name in targets)
        raise UserError(
            f"The parts do not fit together: a first pass over {len(batch.x)} samples failed.\n"
            f"  {parts}\n  x: {_kind(batch.x)}, y: {_kind(batch.y)}\n"
            f"  {type(error).__name__}: {error}{place(error)}"
        ) from error
