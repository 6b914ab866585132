"""A data set in memory, or on the device, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import SplitOptions, check_sizes, cut_by
from dlrun.datasets.splitting.hold_out import hold_out
from dlrun.datasets.tensors.augment import make_augment
from dlrun.datasets.tensors.binarise import Binarise, binarise
from dlrun.datasets.tensors.checks import (
    Pair,
    check_alike,
    check_pair,
    check_ranges,
    column_names,
    names_of_targets,
    report_channels_last,
)
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.label_noise import add_label_noise
from dlrun.datasets.tensors.raw_inputs import Encoding, Prepare, observe
from dlrun.datasets.tensors.sample_keys import sample_keys, thin
from dlrun.datasets.tensors.spec import scaled_truth, spec_of, targets, with_target_scale
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.standardise import Standardise, mean_and_deviation
from dlrun.datasets.tensors.weights import refuse_weights, weights_of_splits, without_weights
from dlrun.types import Data, RawInputs, Task

__all__ = ["from_tensors"]


@dataclass(frozen=True)
class TensorOptions(SplitOptions):
    """The sizes, noise, scale and augmentation of `from_tensors`.

    An `encoding` takes the place of `normalise` and `scale`.
    """

    label_noise: float = 0.0
    normalise: bool = False
    scale: float = 1.0
    augment: Mapping[str, int | float | bool | str] | None = None
    pixels: tuple[float, float] | None = None
    binarise: Binarise | None = None
    held_out_classes: Sequence[int] | None = None
    encoding: Encoding | None = None
    scale_targets: bool = False


def from_tensors(
    name: str,
    train: tuple[Any, ...],
    validation: tuple[Any, ...] | None = None,
    test: tuple[Any, ...] | None = None,
    *,
    task: Task,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    stratify: bool = False,
    groups: Any = None,
    times: Any = None,
    folds: int | None = None,
    fold: int | None = None,
    normalise: bool = False,
    scale: float = 1.0,
    augment: Mapping[str, int | float | bool | str] | None = None,
    pixels: tuple[float, float] | None = None,
    binarise: Literal["threshold", "stochastic"] | None = None,
    columns: Sequence[str] = (),
    content: str | None = None,
    truth: Callable[[Tensor], Tensor] | None = None,
    scale_targets: bool = False,
) -> Data:
    """Make a data set of raw tensors or arrays: split, prepared and described.

    Splits: `split_seed` draws `test_size` and `validation_size` samples from `train`, unless the tensors are given; a
    size is a number, or below 1 a fraction. `train_size` keeps the first of the rest that were drawn, `per_class` the
    first of each class. `stratify` gives every split each class's share; of `groups` [N] none is in two splits; by
    `times` [N] training is before validation, and that before the test. With `folds` the part `fold` of what is no
    test is the validation split.

    A split is a pair (x, y), or with weights of its samples in the mean loss a triple (x, y, weights). Inputs or
    targets of several tensors are for `from_nested`. Of a task `density` the targets may be None: a loss such as `nll`
    looks at the inputs alone.

    Inputs [N, ...] are normalised by the mean and deviation of the training split, for each index of axis 1 (the
    channel), or else divided by `scale`. Targets are classes [N], from 0 to `classes` - 1, or the values of a
    regression, [N] or [N, O], with `scale_targets` scaled by their training mean and deviation and scaled back for
    metrics and predictions. `label_noise` is the share of training classes that `split_seed` makes wrong.

    For `dlrun predict`: `pixels` are the values of black and white, `columns` the names of a table's columns (one of
    pandas has them, and its targets theirs). Without them the range of the training inputs is kept.

    With `binarise` pixels are 0 or 1, by a threshold or drawn by `split_seed`, and not normalised.

    `augment` varies training images, such as `{shift: 2, flip: true}`. `content` is a hash of the samples, computed
    if not given. `truth` is the function behind the targets of a regression.

    Raises `DataError` for tensors that do not fit, `ConfigError` for the other arguments.

    >>> data = from_tensors("mine", (torch.randn(10, 3), torch.arange(10) % 2), task="classification",
    ...                     validation_size=0.2)
    >>> len(data.train), data.spec.input_shape, data.spec.classes
    (8, (3,), 2)
    """
    options = TensorOptions(
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        per_class=per_class,
        label_noise=label_noise,
        split_seed=split_seed,
        normalise=normalise,
        scale=scale,
        augment=augment,
        pixels=pixels,
        binarise=binarise,
        splitting=Splitting.of(stratify=stratify, groups=groups, times=times, folds=folds, fold=fold),
        scale_targets=scale_targets,
    )
    given = {"train": train, "validation": validation, "test": test}
    pairs = {split: pair for split, pair in given.items() if pair is not None}
    return build(
        name,
        pairs,
        task,
        options,
        classes=classes,
        class_names=class_names,
        columns=columns,
        content=content,
        truth=truth,
    )


def build(
    name: str,
    pairs: Mapping[str, Any],
    task: Task,
    options: TensorOptions,
    *,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    target_names: Sequence[str] = (),
    columns: Sequence[str] = (),
    content: str | None = None,
    truth: Callable[[Tensor], Tensor] | None = None,
) -> Data:
    """Make a data set of raw `pairs`, "train" and perhaps "validation" and "test", as `from_tensors` does."""
    pairs, weights = without_weights(pairs)
    columns, target_names = (
        columns or column_names(pairs["train"][0]),
        target_names or names_of_targets(pairs["train"][1]),
    )
    if task == "density":
        pairs = {split: _with_targets(pair) for split, pair in pairs.items()}
    gaps = options.encoding is not None
    pairs = {split: check_pair(name, split, pair, columns, gaps=gaps) for split, pair in pairs.items()}
    check_alike(name, pairs)
    report_channels_last(name, tuple(pairs["train"][0].shape[1:]))
    check_sizes(name, pairs, validation=options.validation_size, test=options.test_size)
    x, y = pairs["train"]
    spec = spec_of(name, task, x, y, classes=classes, class_names=class_names, target_names=target_names)
    for split, (_, values) in pairs.items():
        targets(name, split, spec, values)  # before the cut: a message has the caller's own number of a sample
    if options.held_out_classes is not None:
        refuse_weights(name, weights, "held_out_classes")
        pairs = hold_out(name, pairs, options.held_out_classes, spec.classes, options.split_seed, options.test_size)
        (x, y), options = pairs["train"], replace(options, test_size=0)
        content = content and fingerprint(content, *(values for _, values in pairs.values()))
    index = cut_by(name, y, spec, options, own_validation="validation" in pairs)._asdict()
    weight = weights_of_splits(name, weights, pairs, index)
    raw = {**pairs, **{split: _select((x, y), index[split]) for split in index if len(index[split])}}
    if options.label_noise:
        raw["train"] = add_label_noise(raw["train"], spec, share=options.label_noise, seed=options.split_seed)
    first = raw["train"][0]
    prepare = options.encoding.fit(first) if options.encoding else _preparation(first, options)
    bits = _binary(name, pairs, index, options)
    prepared = {split: bits[split].float() if bits else prepare(x) for split, (x, _) in raw.items()}
    if options.scale_targets:
        spec = with_target_scale(name, spec, raw["train"][1])
    prepared_y = {split: targets(name, split, spec, y) for split, (_, y) in raw.items()}
    splits = {split: TensorSplit(x, prepared_y[split], weight.get(split)) for split, x in prepared.items()}
    content = content or fingerprint(*(tensor for pair in pairs.values() for tensor in pair))
    noise = [prepared_y["train"]] if options.label_noise else [repr(spec.target_scale)] if options.scale_targets else []
    keys = {split: sample_keys(x) for split, (x, _) in raw.items()}
    return Data(
        name=name,
        spec=replace(spec, input_shape=tuple(splits["train"].x.shape[1:]), levels=_levels(first, options)),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        # of the parts that decide a result, in an order that runs of earlier versions share
        fingerprint=fingerprint(
            name, content, *index.values(), repr(prepare), *noise, *bits.values(), *weight.values()
        ),
        prepare=prepare,
        augment=make_augment(options.augment, spec.input_shape),
        truth=truth and scaled_truth(truth, spec),
        # of keys: a third of the time
        split_fingerprints={
            split: fingerprint(keys[split], y, *([bits[split]] if bits else [])) for split, (_, y) in raw.items()
        },
        sample_keys={split: thin(own) for split, own in keys.items()},
        notes=_notes(options, prepare),
        inputs=_describe_inputs(name, raw, options, columns),
    )


def _describe_inputs(name: str, raw: Mapping[str, Pair], options: TensorOptions, columns: Sequence[str]) -> RawInputs:
    """The description of the raw inputs; what is odd about those of a split is said."""
    first, encoding = raw["train"][0], options.encoding
    if encoding:
        encoding.report({split: x for split, (x, _) in raw.items()})
        return encoding.describe(first)
    inputs = observe(first, pixels=options.pixels, columns=columns)
    check_ranges(name, raw, inputs)
    return inputs


def _notes(options: TensorOptions, prepare: Prepare) -> dict[str, Any]:
    given = {"binarise": options.binarise, "held_out_classes": options.held_out_classes}
    notes: dict[str, Any] = {name: value for name, value in given.items() if value}
    scale = {"mean": [*prepare.mean], "deviation": [*prepare.deviation]} if isinstance(prepare, Standardise) else {}
    return scale | notes


def _with_targets(pair: Any) -> Any:
    """Zeros for targets that are None: a batch has two tensors."""
    absent = isinstance(pair, tuple | list) and len(pair) == 2 and pair[1] is None
    return (pair[0], torch.zeros(len(pair[0]))) if absent else pair


def _binary(
    name: str, pairs: Mapping[str, Pair], index: Mapping[str, Tensor], options: TensorOptions
) -> dict[str, Tensor]:
    """The binary pixels of each split; empty without `binarise`."""
    if options.binarise is None:
        return {}
    # drawn before the cut: an image has the same pixels whatever the sizes of the splits
    whole = {
        split: binarise(x, options.binarise, pixels=options.pixels, purpose=f"{name} {split}", seed=options.split_seed)
        for split, (x, _) in pairs.items()
    }
    return whole | {split: whole["train"][places] for split, places in index.items() if len(places)}


def _levels(x: Tensor, options: TensorOptions) -> int | None:
    """The number of values of a prepared pixel, if they are known to be even from 0 to 1."""
    if options.binarise is not None:
        return 2
    whole = not x.is_floating_point() and options.pixels == (0.0, options.scale)
    return int(options.scale) + 1 if whole and not options.normalise else None


def _select(pair: Pair, index: Tensor) -> Pair:
    if len(index) == len(pair[0]):
        return pair  # saves a copy of all samples
    return pair[0].index_select(0, index), pair[1].index_select(0, index)


def _preparation(x: Tensor, options: TensorOptions) -> Standardise:
    shape = tuple(x.shape[1:])
    # binary pixels are not normalised; of a file's pixels a model of two levels takes the nearer one
    if options.normalise and options.binarise is None:
        return Standardise(shape, *mean_and_deviation(x))
    # 64-bit integers without a scale are indices, such as the tokens of a text
    indices = x.dtype == torch.int64 and options.scale == 1
    return Standardise(shape, deviation=(float(options.scale),), indices=indices)
