"""What some samples say of a data set: its spec, its classes, its raw inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.nested.spec import nested_spec
from dlrun.datasets.samples.collate import Own, Pad
from dlrun.datasets.samples.on_demand import MapStyleSamples, MapStyleSplit
from dlrun.datasets.tensors.checks import check_numbered, in_words, report_channels_last, to_tensor
from dlrun.datasets.tensors.raw_inputs import declared
from dlrun.errors import ConfigError, DataError, RunError
from dlrun.nests.batch import Batch
from dlrun.nests.nest import map_nest
from dlrun.nests.shapes import is_shape
from dlrun.randomness import preserve_generators, seed_libraries
from dlrun.types import RawInputs, Spec


def spec_and_splits(
    name: str, splits: Mapping[str, MapStyleSamples], **given: Any
) -> tuple[Spec, dict[str, MapStyleSamples]]:
    """The spec, and the splits whose samples are compared with it as they come.

    The first sample stands for the shapes of all. `given` are the arguments of `nested_spec`.
    """
    samples = splits["train"]
    batch = MapStyleSplit(samples).gather(torch.tensor([0]))
    spec = nested_spec(name, samples.task, batch, **given)
    collate = samples.collate
    if isinstance(collate, Own):
        return spec, dict(splits)
    # a sample has the length of its own, and no mask yet
    own = spec
    if isinstance(collate, Pad):
        own = replace(spec, input_shape=collate.open(_first_shapes(samples)))
        spec = replace(spec, input_shape=collate.with_mask(own.input_shape))
    return spec, {split: replace(each, spec=own, split=in_words(split)) for split, each in splits.items()}


def _first_shapes(samples: MapStyleSamples) -> Any:
    with preserve_generators():
        seed_libraries(0)
        return map_nest(lambda t: tuple(t.shape), samples[0].x)


def known_classes(name: str, samples: Any) -> int:
    """The number of classes that a data set's own attributes tell.

    Raises `ConfigError` without any.
    """
    # the attributes of torchvision's data sets: names, or here also a number
    names = getattr(samples, "classes", None)
    if isinstance(names, list | tuple):
        return len(names)
    if isinstance(names, int):
        return names
    for attribute in ("targets", "labels"):
        values = getattr(samples, attribute, None)
        if values is not None:
            labels = to_tensor(values, f"The `{attribute}` of `{name}`")
            count = int(labels.max()) + 1
            check_numbered(name, labels, count)
            return count
    raise ConfigError(
        f"How many classes the data set `{name}` has is not known without reading all of it: "
        "give classes=10, or give the data set an attribute `targets`."
    )


def raw_inputs(
    name: str,
    spec: Spec,
    samples: MapStyleSamples,
    pixels: tuple[float, float] | None = None,
    columns: Sequence[str] = (),
) -> RawInputs | None:
    """The raw inputs, for `dlrun predict`; None for those of several tensors or lengths, or of a user's `collate`."""
    shape = spec.input_shape
    if not is_shape(shape) or None in shape or isinstance(samples.collate, Own):
        return None
    report_channels_last(name, shape)
    return declared(shape, _raw_type(samples), pixels, columns)


def _raw_type(samples: MapStyleSamples) -> str:
    """The type of the inputs as the data set has them."""
    with preserve_generators():
        seed_libraries(0)
        raw = samples.samples[samples.index[0]]
        x = raw[samples.inputs[0]] if samples.inputs else raw[0]
        return str(to_tensor(x, "The inputs").dtype).removeprefix("torch.")


def read(samples: MapStyleSamples, index: Iterable[int]) -> Iterator[Tensor]:
    """The tensors of some samples."""
    # a data set may vary its samples at random: the fingerprint always sees the same variation,
    # and a run draws the numbers that it would have drawn without it
    with preserve_generators():
        seed_libraries(0)
        for i in index:
            sample = samples[i]
            yield from (sample if isinstance(sample, Batch) else samples.collate([sample])).tensors()


@contextmanager
def as_data_errors() -> Iterator[None]:
    """Raise the block's `RunError` as a `DataError`: no run has begun yet."""
    try:
        yield
    except RunError as error:
        raise DataError(str(error)) from error
