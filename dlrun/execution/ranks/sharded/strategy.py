"""Whether processes keep a copy of the weights each (DDP) or pieces of them (FSDP), and what keeps them from pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.execution.ranks.sharded.blocks import find_blocks
from dlrun.execution.ranks.trial import buffers_kept, first_samples
from dlrun.nests.nest import leaves
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.parameters import is_elementwise
from dlrun.optimizers.torch_optimizer import TorchRule

SHARE = 0.5
"""The part of a GPU's memory that weights, gradients and the optimizer's state may take; activations have the rest."""


def choose(requested: str, training: Training) -> str:
    """`auto` is fsdp where a run takes more than half of a GPU's memory without its activations, else ddp."""
    if requested != "auto":
        return requested
    if training.device.type != "cuda" or _why_not(training) is not None:
        return "ddp"
    memory = torch.cuda.get_device_properties(training.device).total_memory
    return "fsdp" if needed_bytes(training) > SHARE * memory else "ddp"


def needed_bytes(training: Training) -> int:
    """Bytes of weights, gradients, optimizer state and averages, in one process."""
    objective, optimizer = training.objective, training.optimizer
    weights = [p for module in objective.modules for p in module.parameters()]
    trained = _bytes(objective.params)
    state = _bytes(t for t in leaves(optimizer.state_dict()) if isinstance(t, Tensor))
    if isinstance(getattr(optimizer, "rule", None), TorchRule):
        state = max(state, 2 * trained)  # mostly two averages, made in the first step
    average = _bytes(training.average.weights) if training.average else 0
    return _bytes(dict.fromkeys(weights)) + trained + state + average


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def blocks_of(training: Training, observers: Sequence[str], *, unused: bool) -> list[str]:
    """The blocks of a training whose weights are cut (see `sharded.blocks`).

    `observers` are those that are called in training, `unused` is as in `RankGradient`. Raises `ConfigError` for a
    training whose weights cannot be cut.
    """
    why = _why_not(training)
    if why is None and observers:
        why = f"observers.{observers[0]} may look at the model in training, and no process has the whole of it"
    if why is not None:
        raise _refusal(why)
    objective = training.objective
    objective.train()
    with buffers_kept(objective) as before:
        found = find_blocks(objective, first_samples(training))
        if name := _changing_buffer(objective, before):
            raise _refusal(f"the buffer {name} changes in training, and each process would have its own")
    # a block that some samples pass by is called in some processes alone
    return [] if unused else found


def _refusal(why: str) -> ConfigError:
    return ConfigError(f"trainer.strategy=fsdp: {why}. Type trainer.strategy=ddp")


def _why_not(training: Training) -> str | None:
    objective, optimizer = training.objective, training.optimizer
    assert isinstance(optimizer, Descent)
    if not is_elementwise(optimizer.rule):
        rule = getattr(optimizer.rule, "cls", type(optimizer.rule))
        return f"{rule.__name__} is not known to change each number of a weight by itself, and each process has a piece"
    if optimizer.memory.size is not None or optimizer.memory.found:
        return "trainer.micro_batch cuts the batch of each process by itself; trainer.accumulate cuts all alike"
    if training.thaw is not None:
        return "finetune.unfreeze changes in training which weights train"
    if training.log_parameters:
        return "trainer.log_parameters reads all numbers of the model"
    params = [*zip(objective.names, objective.params, strict=True)]
    if scalar := next((name for name, p in params if not p.ndim), None):
        return f"the weight {scalar} is a number without an axis, which cannot be cut"
    if len(kinds := sorted({str(p.dtype).removeprefix("torch.") for _, p in params})) > 1:
        return f"the weights are of the types {' and '.join(kinds)}"
    return None


def _changing_buffer(objective: Objective, before: Sequence[Tensor]) -> str | None:
    """The name of a buffer that a pass in training has changed and that is none of a norm: DDP would send it."""
    values = dict(zip(map(id, objective.buffers()), before, strict=False))
    for module in objective.modules:
        for name, holder in module.named_modules():
            for own, buffer in holder.named_buffers(recurse=False):
                same = torch.equal(buffer, values.get(id(buffer), buffer))
                if not same and not isinstance(holder, _NormBase):
                    return f"{name}.{own}".removeprefix(".")
    return None
