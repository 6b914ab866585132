"""A user's stream: a training set that is read in its own order (`torch.utils.data.IterableDataset`)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.datasets.samples.collate import Pad
from dlrun.datasets.samples.first_samples import as_data_errors, known_classes, raw_inputs, spec_and_splits
from dlrun.datasets.samples.on_demand import MapStyle, MapStyleSamples, MapStyleSplit, by_number, samples_of
from dlrun.datasets.samples.probe import check_repeated, sketch, why_no_state
from dlrun.datasets.samples.source import Stream, begin, is_sharded
from dlrun.datasets.tensors.checks import in_words
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.errors import ConfigError, DataError, DlrunError, place
from dlrun.nests.batch import Batch
from dlrun.randomness import preserve_generators, seed_libraries
from dlrun.terminal import output
from dlrun.types import Augmentation, Data, Task, identity

__all__ = ["from_stream"]

FIRST = 16
"""Samples by which a stream is known; the first steps are tried with them."""
MOST = 1_000_000
"""Samples of an evaluation stream, at most: it is kept in memory, and an endless one would never be."""


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A training stream. The samples that `gather` knows are its first ones, kept in memory."""

    stream: Stream
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def dataset(self) -> MapStyleSamples:
        """The first samples."""
        return self.stream.rows

    @property
    def samples(self) -> int | None:
        """The samples of an epoch, None if nobody knows."""
        return self.stream.samples

    def __len__(self) -> int:
        return len(self.dataset)

    def gather(self, index: Tensor) -> Batch:
        """Some of the first samples."""
        return MapStyleSplit(self.dataset, self.device).gather(index)

    def first(self, number: int) -> MapStyleSplit:
        """So many of the first samples, read now."""
        read = self.stream.first(number)
        rows = replace(self.dataset, samples=read, index=range(len(read)))
        return MapStyleSplit(rows, self.device)

    def to(self, device: torch.device) -> StreamedSplit:
        """The stream with its batches on `device`."""
        return StreamedSplit(self.stream, device)


def from_stream(
    name: str,
    train: Iterable[Any],
    validation: MapStyle | Iterable[Any] | None = None,
    test: MapStyle | Iterable[Any] | None = None,
    *,
    task: Task,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    outputs: int | None = None,
    inputs: str | Sequence[str] = (),
    targets: str | Sequence[str] = (),
    collate: Pad | Callable[[list[Any]], Any] | None = None,
    epoch_samples: int | None = None,
    sharded: bool | None = None,
    content: str | None = None,
    prepare: Callable[[Tensor], Tensor] = identity,
    augment: Augmentation | None = None,
) -> Data:
    """Make a data set whose training samples are a stream: they come in its own order, pass by pass.

    `train` is a `torch.utils.data.IterableDataset`, a stream of webdataset or of Hugging Face `datasets`, or anything
    whose `__iter__` begins anew. Samples, `inputs`, `targets`, `collate` and the other arguments are as for
    `from_datasets`. Where the stream ends, its next pass begins, after `set_epoch(pass)` if it has that method. Random
    numbers that it draws from the global generators are keyed by the run's seed, the pass and the batch.

    `epoch_samples` is the length of an epoch for the run's plan, else `len(train)` if it has one; without both a run
    needs `trainer.steps`. It does not cut the stream. Each worker reads the whole stream and makes its share of the
    batches, which are the same for any number of workers. A `sharded` stream gives each worker samples of its own (by
    `torch.utils.data.get_worker_info`); without it those of webdataset and of Hugging Face are. `validation` and `test`
    have samples by number, or are finite streams, which are read once into memory. `content` (a version, a hash)
    identifies the samples in the fingerprint; without it the first ones do.

    Raises `ConfigError` for arguments, `DataError` for samples that do not fit and for streams that cannot be read
    again.
    """
    _check(name, train, epoch_samples)
    if task == "classification" and not class_names and classes is None:
        classes = known_classes(name, train)
    make = samples_of(task, inputs, targets, collate)
    stream = Stream(train, make([], []), sharded=is_sharded(train) if sharded is None else sharded)
    kept: dict[str, Any] = {"train": _read(f"The stream of `{name}`", train, lambda: stream.first(FIRST))}
    for split, samples in (("validation", validation), ("test", test)):
        if samples is not None:
            kept[split] = samples if by_number(samples) else _whole(name, split, cast("Iterable[Any]", samples))
    whole = {
        split: make(samples, range(len(samples)), of="" if by_number(source) else type(source).__name__)
        for (split, samples), source in zip(kept.items(), _given(train, validation, test), strict=True)
    }
    with as_data_errors():
        known = sketch(whole["train"], kept["train"])
        spec, rows = spec_and_splits(name, whole, classes=classes, outputs=outputs, class_names=class_names)
        splits = {split: MapStyleSplit(samples) for split, samples in rows.items()}
        for each in splits.values():
            each.gather(torch.tensor([0]))
        stream = replace(stream, rows=rows["train"], samples=epoch_samples or _length(train))
        why = why_no_state(stream)
        if warning := check_repeated(name, stream):
            output.warn(warning)
    prints = {
        split: fingerprint(content or "", str(len(samples)), sketch(whole[split], _ends(samples)))
        for split, samples in kept.items()
    }
    return Data(
        name=name,
        spec=spec,
        train=StreamedSplit(replace(stream, own_state=not why, why=why)),
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, *([content] if content else [known]), *prints.values()),
        prepare=prepare,
        augment=augment,
        split_fingerprints=prints,
        inputs=raw_inputs(name, spec, rows["train"]),
    )


def _given(*splits: Any) -> list[Any]:
    return [split for split in splits if split is not None]


def _ends(samples: Sequence[Any], ends: int = 3) -> list[Any]:
    n = len(samples)
    return [samples[i] for i in sorted({*range(min(ends, n)), *range(max(n - ends, 0), n)})]


def _check(name: str, train: Any, epoch_samples: int | None) -> None:
    if by_number(train):
        raise ConfigError(
            f"from_stream(train=…): a {type(train).__name__} has samples by number, which from_datasets(…) shuffles."
        )
    if not hasattr(train, "__iter__"):
        raise ConfigError(f"from_stream(train=…): a {type(train).__name__} has no __iter__; expected a stream.")
    if isinstance(train, Generator):
        raise DataError(
            f"The stream of `{name}` is a generator, which can be read once. Give an object whose __iter__ begins "
            "anew, such as a torch.utils.data.IterableDataset."
        )
    if epoch_samples is not None and epoch_samples < 1:
        raise ConfigError(f"from_stream(epoch_samples={epoch_samples}): expected 1 or more, or None.")


def _read(what: str, source: Any, function: Callable[[], list[Any]]) -> list[Any]:
    """The samples that a function reads, at least one."""
    try:
        found = function()
    except DlrunError:
        raise
    except Exception as error:
        raise DataError(
            f"{what}, a {type(source).__name__}, failed: {type(error).__name__}: {error}{place(error)}"
        ) from error
    if not found:
        raise DataError(f"{what}, a {type(source).__name__}, has no sample.")
    return found


def _whole(name: str, split: str, source: Iterable[Any]) -> list[Any]:
    """All samples of a finite stream."""

    def read() -> list[Any]:
        with preserve_generators():
            seed_libraries(0)
            return list(islice(begin(source, 0), MOST + 1))

    what = f"The {in_words(split)} stream of `{name}`"
    if len(found := _read(what, source, read)) > MOST:
        raise DataError(
            f"{what} has more than {MOST:,} samples, too many to keep in memory. Give the first ones, such as "
            "stream.take(1000), or a data set with samples by number."
        )
    return found


def _length(source: Any) -> int | None:
    try:
        return len(source) or None
    except TypeError:
        return None
