"""A data set in memory whose inputs or targets are tuples or dicts of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.nested import convert
from dlrun.datasets.nested.spec import nested_spec
from dlrun.datasets.splitting.cut import check_sizes, cut
from dlrun.datasets.tensors.checks import check_finite, in_words
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.sample_keys import sample_keys, thin
from dlrun.datasets.tensors.spec import targets
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.weights import weights_of_splits, without_weights
from dlrun.errors import DataError
from dlrun.nests.batch import Batch
from dlrun.nests.nest import Nest, leaves, map_nest, named_leaves
from dlrun.nests.shapes import describe_shapes, shapes_of
from dlrun.types import IGNORE_INDEX, Augmentation, Data, Spec, Task

__all__ = ["from_nested"]


def from_nested(
    name: str,
    train: tuple[Any, ...],
    validation: tuple[Any, ...] | None = None,
    test: tuple[Any, ...] | None = None,
    *,
    task: Task = "other",
    classes: int | None = None,
    outputs: int | None = None,
    class_names: Sequence[str] = (),
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    split_seed: int = 0,
    augment: Augmentation | None = None,
) -> Data:
    """Make a data set of inputs and targets of several tensors or arrays, [N, ...] each.

    A split is a pair (x, y), or with weights of the samples a triple (x, y, weights). `x` and `y` are tensors, or
    tuples or dicts of such. The model gets `input_shape` in the form of `x`, such as {"image": (1, 8, 8), "age": (1,)},
    and is called with what a batch has: `model(batch.x)`.

    `task` says which metrics there are: `classification` and `regression` if `y` is one tensor as for `from_tensors`,
    `dense` for a class for each element of a sequence or picture, int64 [N, ...], with `IGNORE_INDEX` where none
    counts; `other` for all else, with the loss and metrics of your own. `outputs` are the values that a model returns,
    if it asks. Nothing is normalised; float64 becomes float32. Sizes of splits are as for `from_tensors`.

    Raises `DataError` for tensors that do not fit, `ConfigError` for the other arguments.

    >>> x = {"image": torch.zeros(10, 1, 8, 8), "age": torch.zeros(10, 1)}
    >>> data = from_nested("mine", (x, torch.arange(10) % 2), task="classification", validation_size=0.2)
    >>> data.spec.input_shape, data.spec.classes, data.train.gather(torch.tensor([0, 3])).x["age"].shape
    ({'image': (1, 8, 8), 'age': (1,)}, 2, torch.Size([2, 1]))
    """
    given = {"train": train, "validation": validation, "test": test}
    pairs, weights = without_weights({split: pair for split, pair in given.items() if pair is not None})
    whole = {split: _check(name, split, pair) for split, pair in pairs.items()}
    for split, batch in whole.items():
        _check_alike(name, split, batch, whole["train"])
    check_sizes(name, whole, validation=validation_size, test=test_size)
    spec = nested_spec(name, task, whole["train"], classes=classes, outputs=outputs, class_names=class_names)
    for split, batch in whole.items():
        _check_targets(name, split, spec, batch.y)
    places = cut(
        whole["train"].size,
        seed=split_seed,
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
    )._asdict()
    weight = weights_of_splits(name, weights, whole, places)
    cut_out = {split: whole["train"].rows(index) for split, index in places.items() if len(index)}
    batches = whole | cut_out
    keys = {split: _keys(batch.x) for split, batch in batches.items()}
    splits = {split: TensorSplit(batch.x, batch.y, weight.get(split)) for split, batch in batches.items()}
    content = [part for split, batch in whole.items() for part in (split, *_content(batch))]
    return Data(
        name=name,
        spec=spec,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, *content, *places.values(), *weight.values()),
        augment=augment,
        split_fingerprints={split: fingerprint(keys[split], *leaves(batch.y)) for split, batch in batches.items()},
        sample_keys={split: thin(own) for split, own in keys.items()},
    )


def _check(name: str, split: str, pair: Any) -> Batch:
    """The tensors of a split, finite and of one length."""
    where = f"the {in_words(split)} split of `{name}`"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(
            f"The samples of {where} are a {type(pair).__name__}; expected a pair (x, y), or (x, y, weights)."
        )
    # a vector of inputs is one feature a sample
    x = map_nest(lambda t: t[:, None] if t.ndim == 1 else t, convert.inputs(pair[0], f"The inputs{{}} of {where}"))
    x, y = (
        map_nest(torch.Tensor.contiguous, nest) for nest in (x, convert.targets(pair[1], f"The targets{{}} of {where}"))
    )
    sizes = {
        f"{kind} {place}".strip(): t.shape for kind, nest in (("x", x), ("y", y)) for place, t in named_leaves(nest)
    }
    if len({shape[:1] for shape in sizes.values()}) != 1 or 0 in {shape[0] for shape in sizes.values() if shape}:
        shown = ", ".join(f"{place} {list(shape)}" for place, shape in sizes.items())
        raise DataError(
            f"The tensors of {where} have the shapes {shown}; expected [N, …], with the same N of at least 1."
        )
    for kind, nest in (("input", x), ("target", y)):
        for place, tensor in named_leaves(nest):
            check_finite(tensor, f"of {where}" + (f", in `{place}`," if place else ""), kind)
    return Batch(x, y)


def _check_alike(name: str, split: str, batch: Batch, train: Batch) -> None:
    given, expected = (
        [(place, t.dtype, t.shape[1:]) for place, t in named_leaves(tuple(each))] for each in (batch, train)
    )
    if given != expected:
        raise DataError(
            f"The {in_words(split)} split of `{name}` has {_describe(batch)}; the training split has "
            f"{_describe(train)}. Expected the same names, shapes and types."
        )


def _describe(batch: Batch) -> str:
    return f"x: {describe_shapes(shapes_of(batch.x))}, y: {describe_shapes(shapes_of(batch.y))}"


def _check_targets(name: str, split: str, spec: Spec, y: Nest) -> None:
    if spec.task in ("classification", "regression"):
        targets(name, split, spec, y)
    elif spec.task == "dense" and bool(((y != IGNORE_INDEX) & ((y < 0) | (y >= spec.outputs))).any()):
        raise DataError(
            f"The classes of the {in_words(split)} split of `{name}` run from {int(y.min())} to {int(y.max())}; "
            f"expected 0 to {spec.outputs - 1}, and {IGNORE_INDEX} where none counts."
        )


def _keys(x: Nest) -> Tensor:
    """A number for each sample, equal for equal inputs."""
    return sample_keys(torch.stack([sample_keys(t) for t in leaves(x)], 1))


def _content(batch: Batch) -> Iterator[str | Tensor]:
    for place, tensor in named_leaves(tuple(batch)):
        yield place
        yield tensor
