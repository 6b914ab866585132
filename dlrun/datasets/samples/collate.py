"""How samples are put together into a batch: stacked, or padded to the longest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from dlrun.datasets.nested import convert
from dlrun.datasets.tensors.checks import to_tensor
from dlrun.errors import ConfigError, DataError
from dlrun.nests.batch import Batch
from dlrun.nests.nest import Nest, is_nest, join_nests, named_leaves
from dlrun.nests.shapes import is_shape
from dlrun.types import IGNORE_INDEX

Collate = Callable[[Sequence[Any]], Batch]
"""Samples, each a `Batch` without the first axis → a batch."""


def stack(samples: Sequence[Batch]) -> Batch:
    """A batch of samples of equal shapes.

    Raises `DataError` for others.
    """
    x, y = (join_nests(_stack, [sample[side] for sample in samples]) for side in (0, 1))
    masks = _masks(samples)
    return Batch(x, y, _weights(samples), _stack("mask", masks) if masks else None)


@dataclass(frozen=True)
class Pad:
    """Pads sequences, tensors [T, ...], to the longest of a batch: inputs with `value`, classes with `IGNORE_INDEX`.

    `names` are the entries that are sequences; empty: all tensors with an axis. With `mask` the inputs get an entry of
    that name, bool [B, T], which is true where an input is none of the padding; inputs of one tensor are then the entry
    `x`. Real-valued targets are padded with 0, and the batch's `mask` leaves these elements out of the mean loss.
    Without `targets`, and in a regression, targets are no sequences: they are stacked.
    """

    value: float = 0
    names: tuple[str, ...] = ()
    mask: str | None = None
    targets: bool = True

    def __call__(self, samples: Sequence[Batch]) -> Batch:
        """A batch of padded samples."""
        xs, ys = ([sample[side] for sample in samples] for side in (0, 1))
        x, y = join_nests(self._pad_inputs, xs), join_nests(self._pad_targets, ys)
        if self.mask:
            valid = _valid(_lengths(self._first(xs[0]), xs))
            x = {**(x if isinstance(x, dict) else {"x": x}), self.mask: valid}
        return Batch(x, y, _weights(samples), self._join(_masks(samples), self._mask(ys)))

    def open(self, shapes: Any) -> Any:
        """The shapes of samples, with None for the length of a sequence."""
        return self._open("", shapes)

    def with_mask(self, shapes: Any) -> Any:
        """The shapes of inputs, with the mask's."""
        if not self.mask:
            return shapes
        return {**(shapes if isinstance(shapes, dict) else {"x": shapes}), self.mask: (None,)}

    def _open(self, name: str, shape: Any) -> Any:
        if not is_shape(shape):
            items = shape.items() if isinstance(shape, dict) else enumerate(shape)
            opened = {key: self._open(f"{name}.{key}".strip("."), inner) for key, inner in items}
            return opened if isinstance(shape, dict) else tuple(opened.values())
        return (None, *shape[1:]) if self.padded(name, shape) else shape

    def padded(self, name: str, shape: Sequence[int]) -> bool:
        """Is this entry of the samples padded?"""
        return len(shape) > 0 and (not self.names or name in self.names)

    def _pad_inputs(self, name: str, tensors: list[Tensor]) -> Tensor:
        return _pad(name, tensors, self.value) if self.padded(name, tensors[0].shape) else _stack(name, tensors)

    def _pad_targets(self, name: str, tensors: list[Tensor]) -> Tensor:
        if not self.targets or not self.padded(name, tensors[0].shape):
            return _stack(name, tensors)
        return _pad(name, tensors, 0 if tensors[0].is_floating_point() else IGNORE_INDEX)

    def _first(self, x: Nest) -> str:
        for name, value in _entries(x):
            if self.padded(name, value.shape):
                return name
        raise ConfigError(
            f"Of the inputs {', '.join(name for name, _ in _entries(x)) or 'x'} none is a sequence to pad."
        )

    def _join(self, masks: list[Tensor], padding: Tensor | None) -> Tensor | None:
        """The masks that samples came with, without what is padding."""
        if not masks:
            return padding
        # 0 is false: what the samples' masks do not reach counts in no mean
        joined = _pad("mask", masks, 0) if self.targets else _stack("mask", masks)
        return joined if padding is None else joined & padding.view(*padding.shape, *[1] * (joined.ndim - 2))

    def _mask(self, ys: Sequence[Nest]) -> Tensor | None:
        padded = [name for name, y in _entries(ys[0]) if y.is_floating_point() and self.padded(name, y.shape)]
        if not padded or not self.targets:
            return None
        if is_nest(ys[0]):
            # a batch has one mask: padding of one target among several would count as values
            raise ConfigError(
                f"Pad: the target `{padded[0]}` has real values, and is one of several: its padding could not be left "
                f"out. Type {_advice(ys[0], padded[0])}."
            )
        return _valid([len(each) for each in ys])


@dataclass(frozen=True)
class Own:
    """The user's `collate`, of a list of samples as the data set has them."""

    collate: Callable[[list[Any]], Any]
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def __call__(self, samples: Sequence[Any]) -> Batch:
        """The user's batch."""
        return as_batch(self.collate([*samples]), self.inputs, self.targets, "The result of `collate`")


def as_batch(value: Any, inputs: Sequence[str], targets: Sequence[str], what: str) -> Batch:
    """A sample or a batch of a user's as a `Batch`: of a pair, of a triple with weights, or of a dict by its names.

    Raises `DataError` for anything else.
    """
    if isinstance(value, Batch):
        return value
    if isinstance(value, Mapping):
        value = _by_name(value, inputs, targets, what)
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise DataError(f"{what} is a {type(value).__name__}; expected a pair (x, y), or (x, y, weight).")
    weight = to_tensor(value[2], f"{what}: its weight").float() if len(value) == 3 else None
    x, y = convert.inputs(value[0], f"{what}: its inputs{{}}"), convert.targets(value[1], f"{what}: its targets{{}}")
    return Batch(x, y, weight)


def _by_name(row: Mapping[str, Any], inputs: Sequence[str], targets: Sequence[str], what: str) -> tuple[Any, Any]:
    if not inputs or not targets:
        raise DataError(
            f"{what} is a dict of {', '.join(map(str, row))}. Say which are which: "
            f'inputs=["{next(iter(row), "x")}"], targets=["…"].'
        )
    if missing := [name for name in (*inputs, *targets) if name not in row]:
        raise DataError(f"{what} has no `{missing[0]}`; it has: {', '.join(map(str, row))}.")
    x, y = ({name: row[name] for name in names} for names in (inputs, targets))
    return x if len(x) > 1 else next(iter(x.values())), y if len(y) > 1 else next(iter(y.values()))


def _stack(name: str, tensors: list[Tensor]) -> Tensor:
    if len({t.shape for t in tensors}) > 1:
        shapes = sorted({str(list(t.shape)) for t in tensors})
        of = f" (`{name}`)" if name else ""
        raise DataError(
            f"Samples of different shapes cannot be put into one batch{of}: {', '.join(shapes[:4])}. Pad sequences "
            "by collate=Pad(), or put samples together by a function of your own, collate=FUNCTION."
        )
    # in a worker it writes into memory shared with the training
    stacked: Tensor = default_collate(tensors)
    return stacked


def _pad(name: str, tensors: list[Tensor], value: float) -> Tensor:
    if len({t.shape[1:] for t in tensors}) > 1:
        shapes = sorted({str(list(t.shape)) for t in tensors})
        raise DataError(f"Sequences `{name}` may differ in the first axis alone: {', '.join(shapes[:4])}.")
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def _weights(samples: Sequence[Batch]) -> Tensor | None:
    weights = [sample.weight for sample in samples if sample.weight is not None]
    if weights and len(weights) < len(samples):
        raise DataError("Some samples have a weight and some have none. Give all of them one, such as 1.0.")
    return torch.stack([w.reshape(()) for w in weights]) if weights else None


def _masks(samples: Sequence[Batch]) -> list[Tensor]:
    masks = [sample.mask for sample in samples if sample.mask is not None]
    if masks and len(masks) < len(samples):
        raise DataError("Some samples have a mask and some have none. Give all of them one, such as torch.ones(T) > 0.")
    return [mask.bool() for mask in masks]


def _entries(nest: Nest) -> list[tuple[str, Tensor]]:
    return [*named_leaves(nest)]


def _lengths(name: str, xs: Sequence[Nest]) -> list[int]:
    return [len(dict(_entries(x))[name]) for x in xs]


def _advice(y: Nest, padded: str) -> str:
    """What to type where a target of real values stands beside others."""
    own = "collate=FUNCTION, one of your own that puts samples together"
    names = ", ".join(f'"{name}"' for name, each in _entries(y) if each.ndim and name != padded)
    if not names:
        return own
    return f"collate=Pad(names=(…)), with {names} and the inputs that are sequences, if `{padded}` is none; or {own}"


def _valid(lengths: Sequence[int]) -> Tensor:
    """True before each length, bool [B, T]."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
