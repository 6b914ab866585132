"""A map-style data set of the user's (`torch.utils.data.Dataset`), read sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from dlrun.datasets.samples.collate import Pad
from dlrun.datasets.samples.first_samples import as_data_errors, known_classes, raw_inputs, read, spec_and_splits
from dlrun.datasets.samples.on_demand import MapStyle, MapStyleSamples, MapStyleSplit, by_number, samples_of
from dlrun.datasets.splitting.cut import cut
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.sample_keys import numbered_keys, sample_keys, thin
from dlrun.errors import ConfigError, DataError, DlrunError
from dlrun.types import Augmentation, Data, SampleKeys, Task, identity

__all__ = ["from_datasets"]

SKETCHED = 8
"""Samples, about, by which a data set is known again."""


def from_datasets(
    name: str,
    train: MapStyle,
    validation: MapStyle | None = None,
    test: MapStyle | None = None,
    *,
    task: Task,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    outputs: int | None = None,
    validation_size: int | float = 0,
    train_size: int | None = None,
    split_seed: int = 0,
    content: str | None = None,
    prepare: Callable[[Tensor], Tensor] = identity,
    augment: Augmentation | None = None,
    pixels: tuple[float, float] | None = None,
    columns: Sequence[str] = (),
    inputs: str | Sequence[str] = (),
    targets: str | Sequence[str] = (),
    collate: Pad | Callable[[list[Any]], Any] | None = None,
    lengths: Sequence[int] | None = None,
    bucket: int = 50,
) -> Data:
    """Make a data set of map-style data sets.

    A sample is a pair `(x, y)`, with a weight in the mean loss a triple `(x, y, weight)`, or a dict, of which `inputs`
    and `targets` name the entries. `x` and `y` are tensors, arrays or numbers, or tuples and dicts of such; for tasks
    `dense` and `other` see `from_nested`. Samples are stacked. Sequences of several lengths are padded by
    `collate=Pad()`; a `collate` of your own gets a list of samples as the data set has them, and returns a batch in
    the same forms. With `lengths`, a number a training sample, each `bucket` batches of an epoch's random order have
    their samples sorted by length, so that batches have little padding; the batches of a bucket come in random order.

    Without a `validation` set, `split_seed` draws `validation_size` samples of `train`: a number, or below 1 a
    fraction. The number of classes is `classes`, else the number of names, else it follows from the data set's own
    `classes`, `targets` or `labels`. `content` (a version, a hash) identifies the samples in the fingerprint; without
    it the lengths and the first and last samples do. `pixels` are the values of black and white, and `columns` the
    names of a vector's components, for `dlrun predict`.

    Raises `ConfigError` for sizes and for classes that are not known, `DataError` for samples that do not fit.
    """
    if validation is not None and validation_size:
        raise ConfigError(f"dataset.validation_size: the data set `{name}` has its own validation split. Give 0.")
    for argument, source in (("train", train), ("validation", validation), ("test", test)):
        if source is not None and not by_number(source):
            raise ConfigError(
                f"from_datasets({argument}=…): a {type(source).__name__} has no samples by number. One that is read in "
                "order is for dlrun.datasets.from_stream(…)."
            )
    if len(train) == 0:
        raise DataError(f"The data set `{name}` has no training sample.")
    index = cut(len(train), seed=split_seed, validation_size=validation_size, train_size=train_size)
    if task == "classification" and not class_names and classes is None:
        classes = known_classes(name, train)
    make = samples_of(task, inputs, targets, collate)
    given = {
        split: make(samples, list(range(len(samples))))
        for split, samples in (("train", train), ("validation", validation), ("test", test))
        if samples is not None
    }
    if content is None:
        with as_data_errors():
            content = fingerprint(*(piece for split in given for piece in (split, *_sketch(given[split]))))
    drawn = {split: make(train, getattr(index, split).tolist()) for split in ("train", "validation")}
    # the drawn parts take the place of the whole `train`
    chosen = given | {split: samples for split, samples in drawn.items() if len(samples)}
    with as_data_errors():
        spec, chosen = spec_and_splits(name, chosen, classes=classes, outputs=outputs, class_names=class_names)
        splits = {split: MapStyleSplit(samples) for split, samples in chosen.items()}
        for split in [split for split in splits.values() if len(split)]:
            split.gather(torch.tensor([0]))
    return Data(
        name=name,
        spec=spec,
        train=_in_buckets(splits["train"], lengths, index.train, bucket, whole=len(train)),
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, content, *index),
        prepare=prepare,
        augment=augment,
        # by their numbers: to read all samples would take as long as an epoch
        split_fingerprints={
            split: fingerprint(content, _origin(split, given), torch.tensor(samples.index))
            for split, samples in chosen.items()
        },
        sample_keys=_sample_keys(chosen),
        inputs=raw_inputs(name, spec, chosen["train"], pixels, columns),
    )


def _in_buckets(
    split: MapStyleSplit, lengths: Sequence[int] | None, index: Tensor, bucket: int, *, whole: int
) -> MapStyleSplit:
    if lengths is None:
        return split
    if len(lengths) != whole or bucket < 1:
        raise ConfigError(
            f"from_datasets(lengths=…, bucket={bucket}): got {len(lengths)} lengths for {whole} training samples, and "
            "expected a bucket of 1 or more batches."
        )
    return replace(split, lengths=torch.as_tensor(lengths)[index], bucket=bucket)


def _sample_keys(splits: Mapping[str, MapStyleSamples]) -> dict[str, SampleKeys]:
    """Keys without reading the samples.

    Of tensors in memory by their values, of others by the samples' numbers in what `_source` finds. A split that
    cannot be read has none: what is wrong with it is said elsewhere.
    """
    found = {}
    for split, samples in splits.items():
        numbers = torch.tensor(samples.index, dtype=torch.int64)
        source, places = _source(samples.samples, numbers)
        if isinstance(source, TensorDataset):
            found[split] = thin(sample_keys(source.tensors[0])[places])
            continue
        # a part may leave out what cannot be read of the whole
        for one, index in ((source, places), (samples.samples, numbers)):
            with suppress(DlrunError, TypeError):
                found[split] = thin(numbered_keys(_name(one, samples.task), index))
                break
    return found


def _name(samples: MapStyle, task: Task) -> str:
    """A hash of some samples: equal for the same data set given twice."""
    n = len(samples)
    # all over it: the ends alone may be padding
    some = MapStyleSamples(samples, range(0, n, max(1, n // SKETCHED)), task)
    return fingerprint(str(n), *read(some, range(len(some))))


def _source(samples: Any, numbers: Tensor) -> tuple[Any, Tensor]:
    """The data set that `Subset`s are parts of, and the samples' numbers in it."""
    while isinstance(samples, Subset):
        numbers = torch.as_tensor(samples.indices)[numbers]
        samples = samples.dataset
    return samples, numbers


def _origin(split: str, given: Mapping[str, MapStyleSamples]) -> str:
    # a split that was not given is drawn from the training samples
    return split if split in given else "train"


def _sketch(samples: MapStyleSamples, ends: int = 3) -> Iterator[str | Tensor]:
    """An identifier: the number, the first and last samples."""
    n = len(samples)
    yield str(n)
    yield from read(samples, sorted({*range(min(ends, n)), *range(max(n - ends, 0), n)}))
