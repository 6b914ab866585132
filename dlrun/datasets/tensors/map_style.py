"""A user's own map-style data set (`torch.utils.data.Dataset`), read sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.spec import spec_of
from dlrun.datasets.tensors.splits import cut
from dlrun.errors import ConfigError, DataError
from dlrun.randomness import libraries_kept, seed_libraries
from dlrun.types import Augmentation, Batch, Data, Task, identity

__all__ = ["from_datasets"]


class MapStyle(Protocol):
    """Anything with a length and samples `(x, y)` by their number: a map-style data set."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, i: int, /) -> Any:
        """Return sample `i`: an input (tensor, array or number) and a target."""


@dataclass(frozen=True, eq=False)
class MapStyleSamples:
    """Some samples of a map-style data set, each as two tensors that can be put side by side.

    Inputs of 64 bits or of bytes become float32; targets are what losses take, int64 [] for a class,
    float32 [O] for the values of a regression. Workers of a `DataLoader` can be sent it.
    """

    samples: MapStyle
    index: list[int]
    task: Task

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.index)

    def __getitem__(self, i: int) -> Batch:
        """Return sample `i`.

        Raises `DataError` if the data set gives anything but a pair `(x, y)`.
        """
        sample = self.samples[self.index[i]]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise DataError(
                f"Sample {self.index[i]} of {type(self.samples).__name__} is a {type(sample).__name__}; "
                "expected is a pair (x, y)."
            )
        x, y = _input(sample[0]), torch.as_tensor(sample[1])
        if self.task == "regression":
            return Batch(x, y.reshape(-1).float())
        return Batch(x, y.long() if self.task == "classification" else y)


@dataclass(frozen=True, eq=False)
class MapStyleSplit:
    """Samples that are read when they are asked for; in training, workers stream them from `dataset`.

    What a data set draws from the global generators of torch, Python and numpy is here a function of the
    sample's number, so that an evaluation gives the same numbers in any portions.
    """

    dataset: MapStyleSamples
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def gather(self, index: Tensor) -> Batch:
        """Return the samples at `index` (int64 [B]), in that order, on the split's device.

        Raises `DataError` if their shapes differ.
        """
        samples = []
        with libraries_kept():
            for i in index.tolist():
                seed_libraries(i)
                samples.append(self.dataset[i])
        return Batch(*(_stack(values).to(self.device) for values in zip(*samples, strict=True)))

    def to(self, device: torch.device) -> MapStyleSplit:
        """Return the split with its batches on `device`."""
        return MapStyleSplit(self.dataset, device)


def from_datasets(
    name: str,
    train: MapStyle,
    validation: MapStyle | None = None,
    test: MapStyle | None = None,
    *,
    task: Task,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    validation_size: int | float = 0,
    train_size: int | None = None,
    split_seed: int = 0,
    content: str | None = None,
    prepare: Callable[[Tensor], Tensor] = identity,
    augment: Augmentation | None = None,
) -> Data:
    """Return a data set made of map-style data sets, whose samples are pairs `(x, y)`.

    Without a `validation` set, `validation_size` samples of the training set are drawn by
    `split_seed`. The number of classes is given, or the number of names, or follows from the data
    set's own `classes` or `targets`. The fingerprint is of the lengths, the indices and the first and
    last samples, unless `content` (a version, a hash) tells the samples apart. Raises `ConfigError` if
    the classes are not known.
    """
    if validation is not None and validation_size:
        raise ConfigError(f"dataset.validation_size: the data set `{name}` has its own validation split. Give 0.")
    if len(train) == 0:
        raise DataError(f"The data set `{name}` has no training sample.")
    index = cut(len(train), seed=split_seed, validation_size=validation_size, train_size=train_size)
    if task == "classification" and not class_names and classes is None:
        classes = _known_classes(name, train)
    given = {
        part: MapStyleSamples(samples, list(range(len(samples))), task)
        for part, samples in (("train", train), ("validation", validation), ("test", test))
        if samples is not None
    }
    if content is None:
        content = fingerprint(*(p for part in given for p in (part, *_sketch(given[part]))))
    drawn = {part: MapStyleSamples(train, getattr(index, part).tolist(), task) for part in ("train", "validation")}
    parts = given | {part: samples for part, samples in drawn.items() if len(samples)}
    splits = {part: MapStyleSplit(samples) for part, samples in parts.items()}
    first = splits["train"].gather(torch.tensor([0]))
    return Data(
        name=name,
        spec=spec_of(name, task, first.x, first.y, classes=classes, class_names=class_names),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, content, *index),
        prepare=prepare,
        augment=augment,
    )


def _known_classes(name: str, samples: MapStyle) -> int:
    names = getattr(samples, "classes", None)
    if isinstance(names, list | tuple):
        return len(names)
    if isinstance(names, int):
        return names
    for attribute in ("targets", "labels"):
        values = getattr(samples, attribute, None)
        if values is not None:
            return int(torch.as_tensor(values).max()) + 1
    raise ConfigError(
        f"How many classes the data set `{name}` has is not known without reading all of it: "
        "give from_datasets(…, classes=10), or give the data set an attribute `targets`."
    )


def _sketch(part: MapStyleSamples, ends: int = 3) -> Iterator[str | Tensor]:
    n = len(part)
    yield str(n)
    with _repeatable():
        for i in sorted({*range(min(ends, n)), *range(max(n - ends, 0), n)}):
            yield from part[i]


@contextmanager
def _repeatable() -> Iterator[None]:
    # a data set may vary its samples at random: the fingerprint always sees the same variation,
    # and the numbers that a run draws later are those that it would have drawn without it
    with libraries_kept():
        seed_libraries(0)
        yield


def _input(value: Any) -> Tensor:
    x = torch.as_tensor(value)
    return x.float() if x.dtype in (torch.float64, torch.uint8) else x


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = sorted({str(list(tensor.shape)) for tensor in tensors})
        raise DataError(f"Samples of different shapes cannot be put into one batch: {', '.join(shapes[:4])}.")
    return torch.stack(list(tensors))
