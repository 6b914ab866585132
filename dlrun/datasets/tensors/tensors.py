"""A data set that lies in memory, or on the device, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.datasets.tensors.augment import make_augment
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.label_noise import with_label_noise
from dlrun.datasets.tensors.spec import spec_of, targets
from dlrun.datasets.tensors.splits import cut
from dlrun.datasets.tensors.standardise import Standardise, mean_and_deviation
from dlrun.errors import ConfigError, DataError
from dlrun.types import Batch, Data, Spec, Task

__all__ = ["from_tensors"]

Pair = tuple[Tensor, Tensor]
"""Inputs [N, ...] and targets [N, ...], as they are, before any preparation."""


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Samples as two tensors, inputs `x` [N, ...] and targets `y` [N, ...], gathered where they lie."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.x)

    def gather(self, index: Tensor) -> Batch:
        """Return the samples at `index` (int64 [B]), in that order.

        All of them, in their order, are the split's own tensors: change none in place.
        """
        if index.shape[0] == self.x.shape[0] and self._is_whole(index):
            return Batch(self.x, self.y)
        return Batch(self.x.index_select(0, index), self.y.index_select(0, index))

    def to(self, device: torch.device) -> TensorSplit:
        """Return the split with its tensors on `device`."""
        return TensorSplit(self.x.to(device), self.y.to(device))

    def _is_whole(self, index: Tensor) -> bool:
        # elsewhere than on the CPU the answer would wait for the device
        return index.device.type == "cpu" and torch.equal(index, torch.arange(len(index)))


def from_tensors(
    name: str,
    train: Pair,
    validation: Pair | None = None,
    test: Pair | None = None,
    *,
    task: Task,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    normalise: bool = False,
    scale: float = 1.0,
    augment: Mapping[str, int | float | bool] | None = None,
    content: str | None = None,
    truth: Callable[[Tensor], Tensor] | None = None,
) -> Data:
    """Return a data set made of tensors: split, prepared, and described.

    Without `validation` (or `test`) tensors, `validation_size` (`test_size`) samples of the training
    ones are drawn by `split_seed`: a number, or below 1 a fraction. Inputs are normalised by the mean
    and deviation of what is then left for training, for each index of axis 1 (the channel); or, not
    normalised, divided by `scale`. Targets are classes, 0 to `classes` - 1, or the values of a
    regression, [N] or [N, O]; a share `label_noise` of the training classes is wrong, drawn by `split_seed`
    (validation and test are not touched). `content` is a hash of the samples, where the caller knows one. Raises
    `DataError` for tensors that do not fit, `ConfigError` for sizes.

    >>> data = from_tensors("mine", (torch.randn(10, 3), torch.arange(10) % 2), task="classification",
    ...                     validation_size=0.2)
    >>> len(data.train), data.spec.input_shape, data.spec.classes
    (8, (3,), 2)
    """
    given = {"train": train, "validation": validation, "test": test}
    pairs = {part: _check_pair(name, part, pair) for part, pair in given.items() if pair is not None}
    for part, size in (("validation", validation_size), ("test", test_size)):
        if part in pairs and size:
            raise ConfigError(f"dataset.{part}_size={size}: the data set `{name}` has its own {part} split. Give 0.")
    x, y = pairs["train"]
    spec = spec_of(name, task, x, y, classes=classes, class_names=class_names)
    index = cut(
        len(x), seed=split_seed, validation_size=validation_size, test_size=test_size, train_size=train_size
    )._asdict()
    drawn = {part: _select(pairs["train"], index[part]) for part in index if len(index[part])}
    raw = {**pairs, **drawn}
    if label_noise:
        raw["train"] = _add_label_noise(raw["train"], spec, label_noise, split_seed)
    prepare = _preparation(raw["train"][0], normalise=normalise, scale=scale)
    splits = {part: TensorSplit(prepare(a), targets(name, spec, b)) for part, (a, b) in raw.items()}
    noise = (splits["train"].y,) if label_noise else ()
    if content is None:
        content = fingerprint(*(tensor for pair in pairs.values() for tensor in pair))
    return Data(
        name=name,
        spec=spec,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(name, content, *index.values(), repr(prepare), *noise),
        prepare=prepare,
        augment=make_augment(augment, spec.input_shape),
        truth=truth,
        notes={"mean": list(prepare.mean), "deviation": list(prepare.deviation)},
    )


def _check_pair(name: str, part: str, pair: Pair) -> Pair:
    x, y = pair
    # a vector of inputs is one feature a sample
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim < 2 or len(x) == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(
            f"The {part} split of `{name}` has inputs of shape {list(x.shape)} and targets of shape {list(y.shape)}; "
            "expected are [N, ...] and [N, ...] with the same N of at least 1."
        )
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise DataError(f"The inputs of the {part} split of `{name}` are not all finite numbers.")
    return x, y


def _add_label_noise(pair: Pair, spec: Spec, share: float, seed: int) -> Pair:
    if spec.classes is None:
        raise ConfigError(f"dataset.label_noise={share}: a data set for {spec.task} has no classes to confuse.")
    return pair[0], with_label_noise(pair[1].to(torch.int64), share, classes=spec.classes, seed=seed)


def _select(pair: Pair, index: Tensor) -> Pair:
    if len(index) == len(pair[0]):
        return pair
    return pair[0].index_select(0, index), pair[1].index_select(0, index)


def _preparation(x: Tensor, *, normalise: bool, scale: float) -> Standardise:
    shape = tuple(x.shape[1:])
    if normalise:
        return Standardise(shape, *mean_and_deviation(x))
    # whole numbers of 64 bits that nobody scales are indices, such as the tokens of a text
    return Standardise(shape, deviation=(float(scale),), indices=x.dtype == torch.int64 and scale == 1)
