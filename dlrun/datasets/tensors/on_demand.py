"""Samples of a map-style data set (`torch.utils.data.Dataset`) as tensors, each checked as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import is_finite, layout_advice, to_tensor
from dlrun.errors import DataError, DlrunError, RunError, place
from dlrun.randomness import preserve_generators, seed_libraries
from dlrun.terminal.format import counted
from dlrun.types import Batch, Spec, Task


class MapStyle(Protocol):
    """Anything with a length and samples by number."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, i: int, /) -> Any:
        """Sample `i`: a pair of input and target.

        The input is a tensor, an array or a number.
        """


@dataclass(frozen=True, eq=False)
class MapStyleSamples:
    """Some samples of a map-style data set, as tensors.

    Each is two tensors ready for a batch. Inputs float64 and uint8 become float32. A class is int64 [], the target of a
    regression float32 [O]. Each is compared with `spec`, if that is known already. It can be pickled, for the workers
    of a `DataLoader`, if the user's data set can.
    """

    samples: MapStyle
    index: Sequence[int]
    task: Task
    spec: Spec | None = None
    split: str = "training"

    def __len__(self) -> int:
        return len(self.index)

    def name(self, i: int) -> str:
        """The name of sample `i` in messages, with its number in the user's data set."""
        return f"sample {self.index[i]} of {type(self.samples).__name__}"

    def __getitem__(self, i: int) -> Batch:
        """Sample `i`.

        Raises `DataError` for anything but a pair `(x, y)` that fits the others, `RunError` for an exception of the
        user's data set.
        """
        try:
            sample = self.samples[self.index[i]]
        except DlrunError:
            raise
        except Exception as error:
            raise RunError(f"Reading {self.name(i)} failed: {type(error).__name__}: {error}{place(error)}") from error
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise DataError(
                f"Sample {self.index[i]} of {type(self.samples).__name__} is a {type(sample).__name__}; "
                "expected a pair (x, y)."
            )
        x = _input(to_tensor(sample[0], f"The inputs of {self.name(i)}"))
        batch = Batch(x, self._target(i, to_tensor(sample[1], f"The targets of {self.name(i)}")))
        # compared here, a bad sample is named by whoever reads it, a worker too
        if self.spec is not None and (problem := _problem(batch, self.spec)):
            name = self.name(i)
            raise DataError(f"{name[0].upper()}{name[1:]}, in the {self.split} split: {problem}.")
        return batch

    def _target(self, i: int, y: Tensor) -> Tensor:
        if self.task == "regression":
            return y.reshape(-1).float()
        if self.task != "classification":
            return y
        if y.is_floating_point() or y.numel() != 1:
            given = f"{y.item():g}" if y.numel() == 1 else f"a tensor {list(y.shape)}"
            raise DataError(
                f"The target of {self.name(i)} is {given}; a classification needs a whole number, its class."
            )
        return y.reshape(()).long()


def _problem(batch: Batch, spec: Spec) -> str | None:
    """What no model of `spec` can take of a sample, or None."""
    shape = tuple(batch.x.shape)
    if shape != spec.input_shape:
        return (
            f"its inputs have the shape {list(shape)}; expected {list(spec.input_shape)}, as the first sample's"
            f"{layout_advice(shape, spec.input_shape)}"
        )
    if spec.classes is not None and not 0 <= int(batch.y) < spec.classes:
        return f"its class is {int(batch.y)}; expected 0 to {spec.classes - 1}"
    if spec.task == "regression" and batch.y.numel() != spec.outputs:
        return f"its target has {counted(batch.y.numel(), 'value')}; expected {spec.outputs}"
    for kind, values in (("inputs", batch.x), ("targets", batch.y)):
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
    batch size.
    """

    dataset: MapStyleSamples
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.dataset)

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index` (int64 [B]), in that order.

        They are on the split's device. Raises `DataError` for samples of different shapes.
        """
        samples = []
        with preserve_generators():
            for i in index.tolist():
                seed_libraries(i)  # the same variation at every evaluation
                samples.append(self.dataset[i])
        return Batch(*(_stack(values).to(self.device) for values in zip(*samples, strict=True)))

    def to(self, device: torch.device) -> MapStyleSplit:
        """The split with its batches on `device`."""
        return MapStyleSplit(self.dataset, device)


def _input(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float64, torch.uint8) else x


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = sorted({str(list(tensor.shape)) for tensor in tensors})
        raise DataError(f"Samples of different shapes cannot be put into one batch: {', '.join(shapes[:4])}.")
    return torch.stack(list(tensors))
