"""A stream of samples, read in its own order, pass by pass."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from dlrun.datasets.samples.on_demand import MapStyleSamples
from dlrun.randomness import preserve_generators, seed_libraries

SHARDED = ("datasets", "webdataset")
"""Packages whose streams share their shards out among workers."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A user's stream, and how its samples become tensors.

    `samples` are those of an epoch, if they are known. A `sharded` stream gives each worker samples of its own, by
    torch's `get_worker_info`; any other one is read whole by each worker, which keeps its share of the batches. With
    `own_state` its `state_dict` brings a reader back to its place; `why` says why not.
    """

    source: Iterable[Any]
    rows: MapStyleSamples
    samples: int | None = None
    sharded: bool = False
    own_state: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        """Its class, for messages."""
        return type(self.source).__name__

    def first(self, number: int) -> list[Any]:
        """The first samples of a first pass, as the stream has them."""
        with preserve_generators():
            seed_libraries(0)
            return list(islice(begin(self.source, 0), number))

    def convert(self, sample: Any, number: int, number_of_pass: int) -> Any:
        """A sample as tensors, called by its number in messages."""
        return self.rows.convert(sample, f"sample {number} of pass {number_of_pass} of {self.name}")


def begin(source: Iterable[Any], number: int, state: Any = None) -> Iterator[Any]:
    """Begin a pass over a stream; with a `state` go on from there."""
    return iter(prepare(source, number, state))


def prepare(source: Iterable[Any], number: int, state: Any = None) -> Any:
    """A stream before a pass, of which the first is 0.

    Numbers that it keeps in itself are as at first: a copy is read, not deeper than its attributes.
    """
    stream = _copy(source)
    if callable(set_epoch := getattr(stream, "set_epoch", None)):
        set_epoch(number)
    # stages of webdataset count their passes themselves, from -1 on
    for stage in counts_by_stage(stream):
        stage.epoch = number - 1
    if state is not None:
        # a stream may go on in the object that it is given
        stream.load_state_dict(copy.deepcopy(state))
    return stream


def _copy(source: Any) -> Any:
    try:
        stream = copy.copy(source)
    except Exception:  # an open file, a connection: of these there is one
        return source
    # `__setstate__` of Hugging Face's gives the copy the attributes themselves
    if getattr(stream, "__dict__", None) is getattr(source, "__dict__", 0):
        stream.__dict__ = dict(source.__dict__)
    # its pass is a number in memory that workers share, to which two of them may add at once
    for name, value in list(getattr(stream, "__dict__", {}).items()):
        if isinstance(value, torch.Tensor) and value.ndim == 0 and value.is_shared():  # type: ignore[no-untyped-call]
            stream.__dict__[name] = value.clone()
    return stream


def counts_by_stage(source: Any) -> list[Any]:
    """The stages of a pipeline that count its passes."""
    return [stage for stage in getattr(source, "pipeline", ()) if isinstance(getattr(stage, "epoch", None), int)]


def has_state(source: Any) -> bool:
    """Has a stream torch's two methods for its place?"""
    return callable(getattr(source, "state_dict", None)) and callable(getattr(source, "load_state_dict", None))


def is_plain(value: Any) -> bool:
    """Can a checkpoint hold it?"""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, TypeError, AttributeError, RuntimeError):
        return False
    return True


def is_sharded(source: Any) -> bool:
    """Is it of a package whose streams share their shards out among workers?"""
    return any(kind.__module__.partition(".")[0] in SHARDED for kind in type(source).__mro__)
