"""The training batches of a stream: in its order, from a place that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dlrun.datasets.samples.source import Stream
from dlrun.engine.reading.loading import load_passes
from dlrun.engine.reading.passes import Passes, Position
from dlrun.errors import ConfigError, RunError
from dlrun.randomness import AUGMENTATION, key
from dlrun.types import Augmentation, Batch, Split


@runtime_checkable
class StreamSplit(Protocol):
    """A training split that is a stream; `gather` knows its first samples alone."""

    stream: Stream
    device: torch.device

    @property
    def samples(self) -> int | None:
        """The samples of an epoch, None if nobody knows."""

    def __len__(self) -> int:
        """The number of the first samples."""

    def gather(self, index: Tensor) -> Batch:
        """Some of the first samples."""

    def first(self, number: int) -> Split:
        """So many of the first samples, read now."""

    def to(self, device: torch.device) -> StreamSplit:
        """The stream with its batches on `device`."""


@dataclass
class StreamBatches:
    """The training batches of a stream of `split`, `size` samples each; `per_epoch` are those of an epoch's plan.

    The last batch of a pass may be smaller, unless `drop_last`. With `only`, so many first batches are repeated for
    ever, unaugmented. Where one step stands in the stream is known for the steps around the last batch that was taken:
    `state_dict` and `load_state_dict` move it into a checkpoint and out of it.
    """

    split: StreamSplit
    size: int
    seed: int
    device: torch.device
    per_epoch: int
    augment: Augmentation | None = None
    drop_last: bool = False
    only: int | None = None
    workers: int = 0
    balance: None = None
    _places: dict[int, Position] = field(default_factory=lambda: {0: Position()})
    _begin: tuple[int, int] = (0, 0)
    _short: list[tuple[int, int]] = field(default_factory=list)

    @property
    def last(self) -> int:
        """Samples in the last batch of an epoch, as far as they are planned."""
        n = self.split.samples
        return self.size if n is None or self.drop_last else n - (self.per_epoch - 1) * self.size

    @property
    def own_state(self) -> bool:
        """Does the stream itself say its place? Workers with samples of their own have a place each."""
        return self.split.stream.own_state and (not self.split.stream.sharded or self.workers <= 1)

    @property
    def way(self) -> str:
        """How the workers read it, and how a resumed run finds its place."""
        stream, workers = self.split.stream, self.workers
        ways = []
        if workers > 1:
            ways.append(
                f"shared out among {workers} workers"
                if stream.sharded
                else f"read whole by each of {workers} workers, which make the batches in turn"
            )
        if self.own_state:
            return "; ".join([*ways, "resumes by its own state"])
        why = stream.why or "each worker has a state of its own; trainer.workers=0 has one"
        return "; ".join([*ways, f"resumes by skipping what was read ({why})"])

    @property
    def skips(self) -> int:
        """Batches that a resumed run reads again to find its place."""
        place = self._places[max(self._places)]
        return 0 if place.state is not None else place.batches

    def seen(self, steps: int) -> int:
        """Samples in the first `steps` batches, as far as the stream was read; full ones after that."""
        step, samples = self._begin
        return samples + (steps - step) * self.size - sum(missing for at, missing in self._short if at <= steps)

    def state_dict(self, step: int) -> dict[str, Any]:
        """The place in the stream after so many steps, for the checkpoint."""
        if self.only:
            return {}
        return {"step": step, "workers": self._sharing, **asdict(self._places[step])}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on from a place of `state_dict`.

        Raises `ConfigError` if the stream is shared out among another number of workers, `KeyError` without a place.
        """
        if self.only:
            return
        kept = dict(content)
        step, workers = int(kept.pop("step")), int(kept.pop("workers"))
        if workers != self._sharing:
            raise ConfigError(
                f"The stream was shared out among {workers or 'no'} workers, and its samples came in their order: with "
                f"trainer.workers={self.workers} the run would see others. Type trainer.workers={workers}"
            )
        place = Position(**kept)
        self._places = {0: Position(), step: place}
        self._begin, self._short = (step, place.samples), []

    @property
    def _sharing(self) -> int:
        return self.workers if self.split.stream.sharded else 0

    def start(self, step: int) -> Generator[Batch, None, None]:
        batches = self._repeated(step) if self.only else self._read(step)
        return batches if not self.augment or self.only else self._augment(batches, step)

    def _repeated(self, step: int) -> Generator[Batch, None, None]:
        with closing(self._read(0)) as batches:
            few = list(islice(batches, self.only))
        while True:
            yield few[step % len(few)]
            step += 1

    def _read(self, step: int) -> Generator[Batch, None, None]:
        place = self._places[step]
        self._places, self._begin, self._short = {0: Position(), step: place}, (step, place.samples), []
        passes = Passes(
            self.split.stream,
            self.size,
            self.seed,
            drop_last=self.drop_last,
            says_place=self.own_state,
            start=place,
        )
        cuda = self.device.type == "cuda"
        number, taken = place.number, place.batches
        left = 0 if place.state is not None else taken
        with closing(load_passes(passes, workers=self.workers, pin_memory=cuda)) as results:
            for result in results:
                if isinstance(result, str):
                    self._check_pass(number, taken, left)
                    number, taken = number + 1, 0
                elif left:
                    left -= 1
                else:
                    batch = Batch(*result.parts)
                    taken, step = taken + 1, step + 1
                    self._note(step, Position(number, taken, self.seen(step), result.state), self.size - batch.size)
                    yield batch.to(self.device, non_blocking=True)

    def _note(self, step: int, place: Position, missing: int) -> None:
        if missing:
            self._short.append((step, missing))
            place = Position(place.number, place.batches, place.samples - missing, place.state)
        # the loop draws one batch before it sees that it is done
        before = self._places[step - 1]
        self._places = {0: Position(), step - 1: before, step: place}

    def _check_pass(self, number: int, taken: int, left: int) -> None:
        """Raise `RunError` for a pass without a batch, or shorter than when it was read before."""
        stream = self.split.stream
        if left:
            raise RunError(
                f"The stream {stream.name} has come to its end {left} batches before the place where the run had left "
                "it: it is not the same any more."
            )
        if not taken:
            few = f"fewer than {self.size} samples, and trainer.drop_last leaves them out" if self.drop_last else "none"
            raise RunError(f"The stream {stream.name} has no batch in pass {number}: it has {few}.")

    def _augment(self, batches: Generator[Batch, None, None], step: int) -> Generator[Batch, None, None]:
        draw = torch.Generator(self.device)
        with closing(batches):
            for batch in batches:
                yield self.vary(batch, draw, step)
                step += 1

    def vary(
        self, batch: Batch, draw: torch.Generator, step: int, epoch: int = 0, index: Tensor | None = None
    ) -> Batch:
        """The batch of a step, its inputs varied by the augmentation."""
        assert self.augment is not None
        # by the step, so that a resumed run draws the same
        draw.manual_seed(key(self.seed, AUGMENTATION, step))
        return Batch(self.augment(batch.x, draw), batch.y, batch.weight, batch.mask)  # type: ignore[call-arg]


def size_of(split: Split | None) -> int:
    """The samples of a split, of a stream those of an epoch; 0 if nobody knows."""
    if isinstance(split, StreamSplit):
        return split.samples or 0
    return 0 if split is None else len(split)


def order_of(split: Split, workers: int) -> str:
    """What the order of a training split's samples depends on beside its content; empty for nothing."""
    shared = isinstance(split, StreamSplit) and split.stream.sharded and workers > 1
    return f" among {workers} workers" if shared else ""
