"""Initial weights that are made of the data: those of lazy modules, and of a model with `init_from_inputs`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dlrun.engine.batches import LoaderSplit
from dlrun.engine.lazy_modules import materialise, uninitialised
from dlrun.engine.own.modules import module_of
from dlrun.engine.reading.streams import StreamSplit
from dlrun.randomness import INITIALISATION, key, seed_default
from dlrun.runs.dry_run.messages import explain
from dlrun.runs.dry_run.passes import FEW
from dlrun.types import Batch, Data, Loss, Split

IN_MEMORY, FROM_DISK = 5000, 500
"""Training inputs for a model's `init_from_inputs`, at most: of a data set in memory, and of one read file by file."""


def make_of_data(plain: dict[str, Any], model: nn.Module, loss: Loss, data: Data, device: torch.device) -> None:
    """Make the weights of `model`, and of a loss that is a module, that need samples of `data`, on `device`.

    Raises `UserError` if they do not fit together.
    """
    targets = {name: plain[name]["_target_"] for name in ("dataset", "model", "loss")}
    own = module_of(loss)
    if uninitialised(model) or (own is not None and uninitialised(own)):
        few = _first(data.train, FEW, device)
        seed_default(torch.device("cpu"), key(plain["seed"], INITIALISATION, 1))
        with explain(few, targets, *targets):
            materialise(model, loss, few)
    if callable(getattr(model, "init_from_inputs", None)):
        first = _first(data.train, FROM_DISK if isinstance(data.train, LoaderSplit) else IN_MEMORY, device)
        with explain(first, targets, "dataset", "model", doing="its `init_from_inputs`"):
            model.init_from_inputs(first.x)  # type: ignore[operator]


def _first(split: Split, most: int, device: torch.device) -> Batch:
    """The first samples, on the CPU: there all weights are made."""
    if isinstance(split, StreamSplit):
        split = split.first(most)
    return split.gather(torch.arange(min(most, len(split)), device=device)).to("cpu")
