"""The jobs of a sweep as Hydra composes them, one at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig

from dlrun.sweeps.jobs.expand import Expansion


@dataclass(frozen=True)
class ComposedJob:
    """A job as Hydra composes it, not checked yet."""

    n: int
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def label(self) -> str:
        return " ".join(self.overrides) or "the one job"


@dataclass(frozen=True)
class ComposedJobs:
    """The jobs of `overrides`, numbered from `first` on, each composed when it is its turn.

    A configuration takes 50 kB: ten thousand are not held at once.
    """

    expansion: Expansion
    overrides: Sequence[Sequence[str]]
    first: int = 0

    def __len__(self) -> int:
        return len(self.overrides)

    def __iter__(self) -> Iterator[ComposedJob]:
        """Compose each job; raises `ConfigError` for one that cannot be."""
        with _frozen_heap():
            for n, overrides in enumerate(self.overrides, self.first):
                yield ComposedJob(n, self.expansion.own(overrides), self.expansion.config(overrides, n))


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep the garbage collector off what is there already.

    Configurations refer to themselves, so each few hundred of them it would walk through all of torch: a third of the
    time of a job.
    """
    if gc.get_freeze_count():  # a server of processes has frozen it for good
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
