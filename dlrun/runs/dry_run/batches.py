"""The training batches of a run, checked against its data set and its optimizer."""

from __future__ import annotations

import torch

from dlrun.config.settings import Trainer
from dlrun.engine.batches import Batches
from dlrun.engine.loop import TrainingBatches
from dlrun.engine.protocols import Optimizer
from dlrun.engine.reading.streams import StreamSplit
from dlrun.errors import ConfigError
from dlrun.runs.dry_run.balance import make_balance
from dlrun.runs.dry_run.streams import stream_batches
from dlrun.terminal.format import counted
from dlrun.types import Data


def make_batches(
    data: Data, trainer: Trainer, optimizer: Optimizer, *, seed: int, device: torch.device
) -> TrainingBatches:
    """Make the training batches.

    Raises `ConfigError` for a batch larger than the split, and for one that its classes cannot fill.
    """
    if isinstance(data.train, StreamSplit):
        return stream_batches(data, data.train, trainer, optimizer, seed=seed)
    n = len(data.train)
    size = trainer.batch_size or n
    if size > n:
        raise ConfigError(
            f"trainer.batch_size={size} is larger than the training split of {data.name}, {counted(n, 'sample')}. "
            f"Give at most {n}, or trainer.batch_size=null for the whole split."
        )
    _check_whole_split(data, trainer, optimizer, whole=size == n)
    balance = make_balance(data, trainer.classes_per_batch, size, device)
    return Batches(
        data.train,
        size=size,
        seed=seed,
        device=device,
        augment=data.augment,
        drop_last=trainer.drop_last or balance is not None,
        only=trainer.overfit_batches,
        workers=trainer.workers,
        balance=balance,
    )


def _check_whole_split(data: Data, trainer: Trainer, optimizer: Optimizer, *, whole: bool) -> None:
    """Refuse mini-batches, and further steps, for an optimizer to which they give a worse answer."""
    kind = type(optimizer).__name__
    if not getattr(optimizer, "whole_split", False):
        return
    once = getattr(optimizer, "one_step", False)
    if not once and trainer.overfit_batches == 1:
        return  # the same batch in each step
    words = "trainer.batch_size=null trainer.steps=1" if once else "trainer.batch_size=null"
    if not whole:
        raise ConfigError(
            f"{kind} takes the whole training split of {data.name} in a step, "
            f"{counted(len(data.train), 'sample')}; trainer.batch_size={trainer.batch_size} is a part of it, "
            f"with a worse answer. Type {words}"
        )
    if once and not trainer.fast and (trainer.minutes or trainer.steps != 1):
        length = next(f"trainer.{n}={v}" for n in ("minutes", "steps", "epochs") if (v := getattr(trainer, n)))
        raise ConfigError(f"{kind} has its answer after one step; the length was given as {length}. Type {words}")
    if not once and data.augment:
        raise ConfigError(
            f"{kind} needs the same batch in each step, and the data set {data.name} varies it by its "
            f"augmentation. Type dataset.augment=null, or choose another optimizer."
        )
