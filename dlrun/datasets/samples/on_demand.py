"""Samples of a map-style data set (`torch.utils.data.Dataset`) as tensors, each checked as it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from dlrun.datasets.samples.collate import Collate, Own, Pad, as_batch, stack
from dlrun.datasets.tensors.checks import is_finite, layout_advice
from dlrun.errors import DataError, DlrunError, RunError, place
from dlrun.nests.batch import Batch
from dlrun.nests.nest import is_nest, leaves, map_nest
from dlrun.nests.shapes import describe_shapes, fits, is_shape, map_shapes
from dlrun.randomness import preserve_generators, seed_libraries
from dlrun.terminal.format import counted
from dlrun.types import Spec, Task


class MapStyle(Protocol):
    """Anything with a length and samples by number."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, i: int, /) -> Any:
        """Sample `i`: a pair of input and target, a triple with a weight, or a dict.

        Inputs and targets are tensors, arrays or numbers, or tuples and dicts of such.
        """


def by_number(samples: Any) -> bool:
    """Has it a length and samples by number?"""
    return hasattr(samples, "__len__") and hasattr(samples, "__getitem__") and not isinstance(samples, IterableDataset)


@dataclass(frozen=True, eq=False)
class MapStyleSamples:
    """Some samples of a map-style data set, as tensors.

    Each is a `Batch` without the first axis, for `collate`. Inputs float64 and uint8 become float32. A class is int64
    [], the target of a regression float32 [O]. Of a dict, `inputs` and `targets` name the entries. Each is compared
    with `spec`, if that is known already. Messages call the data set `of`, or by its class. It can be pickled, for the
    workers of a `DataLoader`, if the user's data set can.
    """

    samples: MapStyle
    index: Sequence[int]
    task: Task
    spec: Spec | None = None
    split: str = "training"
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    collate: Collate = stack
    of: str = ""

    def __len__(self) -> int:
        return len(self.index)

    def name(self, i: int) -> str:
        """The name of sample `i` in messages, with its number in the user's data set."""
        return f"sample {self.index[i]} of {self.of or type(self.samples).__name__}"

    def __getitem__(self, i: int) -> Any:
        """Sample `i`; for a `collate` of the user's own as the data set has it.

        Raises `DataError` for a sample that does not fit the others, `RunError` for an exception of the data set.
        """
        try:
            sample = self.samples[self.index[i]]
        except DlrunError:
            raise
        except Exception as error:
            raise RunError(f"Reading {self.name(i)} failed: {type(error).__name__}: {error}{place(error)}") from error
        return self.convert(sample, self.name(i))

    def convert(self, sample: Any, name: str) -> Any:
        """A sample of the user's, called so in messages, as `__getitem__` returns it."""
        if isinstance(self.collate, Own):
            return sample
        given = as_batch(sample, self.inputs, self.targets, f"S{name[1:]}")
        batch = given if is_nest(given.y) else given._replace(y=self._target(name, given.y))
        # compared here, a bad sample is named by whoever reads it, a worker too
        if self.spec is not None and (problem := _problem(batch, self.spec)):
            raise DataError(f"{name[0].upper()}{name[1:]}, in the {self.split} split: {problem}.")
        return batch

    def _target(self, name: str, y: Tensor) -> Tensor:
        if self.task == "regression":
            return y.reshape(-1).float()
        if self.task == "dense" and not y.is_floating_point():
            return y.long()
        if self.task != "classification":
            return y
        if y.is_floating_point() or y.numel() != 1:
            given = f"{y.item():g}" if y.numel() == 1 else f"a tensor {list(y.shape)}"
            raise DataError(f"The target of {name} is {given}; a classification needs a whole number, its class.")
        return y.reshape(()).long()


def samples_of(
    task: Task,
    inputs: str | Sequence[str],
    targets: str | Sequence[str],
    collate: Pad | Callable[[list[Any]], Any] | None,
) -> Callable[..., MapStyleSamples]:
    """`MapStyleSamples` with these names of entries, put together by a user's `collate`."""
    names = [(given,) if isinstance(given, str) else tuple(given) for given in (inputs, targets)]
    together = collate if isinstance(collate, Pad) else Own(collate, *names) if collate else stack
    if isinstance(together, Pad) and task == "regression":  # each sample has as many targets
        together = replace(together, targets=False)
    return partial(MapStyleSamples, task=task, inputs=names[0], targets=names[1], collate=together)


def _problem(batch: Batch, spec: Spec) -> str | None:
    """What no model of `spec` can take of a sample, or None."""
    shape = map_nest(lambda t: tuple(t.shape), batch.x)
    if not fits(shape, spec.input_shape):
        advice = layout_advice(shape, spec.input_shape) if is_shape(shape) and is_shape(spec.input_shape) else ""
        if not advice and fits(shape, map_shapes(lambda own: (None, *own[1:]), spec.input_shape)):
            advice = ". Sequences of several lengths are padded by collate=Pad()"
        return (
            f"its inputs have the shape {describe_shapes(shape)}; expected {describe_shapes(spec.input_shape)}, as the "
            f"first sample's{advice}"
        )
    if spec.task == "classification" and spec.classes is not None and not 0 <= int(batch.y) < spec.classes:
        return f"its class is {int(batch.y)}; expected 0 to {spec.classes - 1}"
    if spec.task == "regression" and batch.y.numel() != spec.outputs:
        return f"its target has {counted(batch.y.numel(), 'value')}; expected {spec.outputs}"
    for kind, values in [(kind, t) for kind, nest in (("inputs", batch.x), ("targets", batch.y)) for t in leaves(nest)]:
        if values.is_floating_point() and not is_finite(values):
            count = int((~values.isfinite()).sum())
            return (
                f"of its {kind} {count} of {values.numel()} are NaN or infinite: the data has them, no training does. "
                "Fill them, or leave the sample out"
            )
    return None


@dataclass(frozen=True, eq=False)
class MapStyleSplit:
    """Samples read on demand.

    In training, workers read them from `dataset`. Random numbers that a data set draws from the global generators of
    torch, Python and numpy are a function of the sample's number here. So an evaluation gives the same values for any
    batch size. With `lengths` [N] each `bucket` batches of training have their samples sorted by length.
    """

    dataset: MapStyleSamples
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    lengths: Tensor | None = None
    bucket: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index` (int64 [B]), in that order, put together by the data set's `collate`.

        They are on the split's device. Raises `DataError` for samples of different shapes.
        """
        samples = []
        with preserve_generators():
            for i in index.tolist():
                seed_libraries(i)  # the same variation at every evaluation
                samples.append(self.dataset[i])
        return self.dataset.collate(samples).to(self.device)

    def to(self, device: torch.device) -> MapStyleSplit:
        """The split with its batches on `device`."""
        return MapStyleSplit(self.dataset, device, self.lengths, self.bucket)
