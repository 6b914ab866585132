"""The training batches of a stream, checked against what a stream cannot be asked for."""

from __future__ import annotations

from math import ceil

from dlrun.config.settings import Trainer
from dlrun.engine.batches import varies_by_sample
from dlrun.engine.protocols import Optimizer
from dlrun.engine.reading.streams import StreamBatches, StreamSplit
from dlrun.errors import ConfigError
from dlrun.types import Data


def check_stream(data: Data, trainer: Trainer, optimizer: Optimizer) -> None:
    """Raise `ConfigError` for settings that need all training samples at once."""
    what = f"the training samples of {data.name} are a stream"
    if trainer.batch_size is None:
        raise ConfigError(f"trainer.batch_size=null: {what}, never whole. Type for example trainer.batch_size=64")
    if trainer.classes_per_batch:
        raise ConfigError(
            f"trainer.classes_per_batch={trainer.classes_per_batch} needs the classes of all samples at once; {what}. "
            "Leave it out."
        )
    if getattr(optimizer, "whole_split", False) and trainer.overfit_batches != 1:
        raise ConfigError(
            f"{type(optimizer).__name__} takes the whole training split in a step; {what}. Type for example "
            "optimizer=adamw"
        )
    if varies_by_sample(data.augment):
        raise ConfigError(
            f"The augmentation of {data.name} asks for the places of samples, and {what}. Give one of (x, generator)."
        )


def stream_batches(
    data: Data, split: StreamSplit, trainer: Trainer, optimizer: Optimizer, *, seed: int
) -> StreamBatches:
    """Make the batches of a stream.

    Raises `ConfigError` for settings that it cannot have, and where nothing says how many steps the run has.
    """
    check_stream(data, trainer, optimizer)
    size, samples = trainer.batch_size or 1, split.samples
    if samples is None and not trainer.fast and (trainer.minutes or not trainer.steps):
        given = f"trainer.minutes={trainer.minutes}" if trainer.minutes else f"trainer.epochs={trainer.epochs}"
        raise ConfigError(
            f"{given}: how long an epoch is, the stream of {data.name} does not say. Type for example "
            f"trainer.steps=1000, or give from_stream(…, epoch_samples=N)."
        )
    if samples is None:
        # the run is one epoch: what is due once in an epoch is due at its end
        per_epoch = 2 if trainer.fast else trainer.steps or 1
    else:
        per_epoch = samples // size if trainer.drop_last else ceil(samples / size)
    if per_epoch == 0:
        raise ConfigError(
            f"trainer.batch_size={size} is larger than an epoch of {data.name}, {samples} samples. Give at most "
            f"{samples}."
        )
    return StreamBatches(
        split,
        size=size,
        seed=seed,
        device=split.device,
        per_epoch=min(per_epoch, trainer.overfit_batches or per_epoch),
        augment=data.augment,
        drop_last=trainer.drop_last,
        only=trainer.overfit_batches,
        workers=trainer.workers,
    )
