"""Random splits for training, validation and test, by a seed of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.rules import AtRandom, SplitRule, place_in_class
from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.errors import ConfigError, DataError
from dlrun.terminal.format import counted
from dlrun.types import Spec


class SplitIndices(NamedTuple):
    """The disjoint indices of three splits, int64, ascending."""

    train: Tensor
    validation: Tensor
    test: Tensor


def cut(
    n: int,
    *,
    seed: int,
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    kept: Callable[[Tensor], Tensor] | None = None,
    rule: SplitRule | None = None,
    fold: tuple[int, int] | None = None,
) -> SplitIndices:
    """Draw test, validation and training samples out of `n`.

    A size is a number of samples, or below 1 a fraction of `n`. `train_size` keeps the first of the rest that were
    drawn, so a larger one adds samples; `kept` says of the rest, in that order, which it keeps. A `rule` draws by
    classes, groups or times, and whole groups make sizes approximate. With `fold`, such as (5, 0), the validation
    samples are the first of five parts of what is no test. Raises `ConfigError` for sizes that leave nothing to train
    on.

    >>> [len(split) for split in cut(10, seed=0, validation_size=0.2, test_size=3)]
    [5, 2, 3]
    """
    test, validation = sample_count(test_size, n, "test_size"), sample_count(validation_size, n, "validation_size")
    left = n - test - validation
    if left < 1:
        key, size, most = ("test_size", test_size, n) if test >= n else ("validation_size", validation_size, n - test)
        raise ConfigError(
            f"dataset.{key}={size} leaves nothing to train on: of {counted(n, 'sample')} {min(test, n)} are for the "
            f"test. Give a number below {most}, or a fraction below {most / n:.3g}."
        )
    if train_size is not None and not 1 <= train_size <= left:
        raise ConfigError(f"dataset.train_size={train_size}: expected 1 to {left}, or null for all of them.")
    rule = rule or AtRandom()
    order = torch.randperm(n, generator=seeded_generator("split", seed))
    # test first: another validation size, or fold, leaves the test split as it is
    tested, rest = rule.take(order, test)
    validated, rest = rule.take(rest, validation) if fold is None else rule.fold(rest, *fold)
    if not len(rest) or (fold and not len(validated)):
        raise ConfigError(f"{counted(n, 'sample')} cannot be split so: a split would have none. Give smaller sizes.")
    # whole groups may leave fewer
    if train_size is not None and train_size > len(rest):
        raise ConfigError(f"dataset.train_size={train_size}: expected 1 to {len(rest)}, or null for all of them.")
    if kept is not None:
        rest = rest[kept(rest)]
    elif train_size is not None:
        rest = rule.first(rest, train_size)
    # ascending: a split of all samples is the file as it lies there
    return SplitIndices(*(split.sort().values for split in (rest, validated, tested)))


@dataclass(frozen=True)
class SplitOptions:
    """What is drawn of the training samples, as `cut` has it; `per_class` keeps the first of each class."""

    validation_size: int | float = 0
    test_size: int | float = 0
    train_size: int | None = None
    per_class: int | None = None
    split_seed: int = 0
    splitting: Splitting = field(default_factory=Splitting)


def drawn_size(given: int | float | None, share: float, *, own: bool) -> int | float:
    """A split's size as given, else a `share`: nothing of a split that has samples of its `own`."""
    if given is not None:
        return given
    return 0 if own else share


def cut_by(name: str, y: Tensor, spec: Spec, options: SplitOptions, *, own_validation: bool = False) -> SplitIndices:
    """Cut samples with the targets `y` [N] by the options of a data set.

    Raises `ConfigError` for options that do not fit, and as `cut` does.
    """
    splitting, seed = options.splitting, options.split_seed
    for what, values in (("groups", splitting.groups), ("times", splitting.times)):
        if values is not None and values.shape != y.shape[:1]:
            raise DataError(f"The {what} of `{name}` have the shape {list(values.shape)}; expected [{len(y)}].")
    if splitting.folds is not None and own_validation:
        raise ConfigError(
            f"dataset.folds={splitting.folds}: the data set `{name}` has its own validation split. Type "
            "dataset.folds=null dataset.fold=null."
        )
    rule = splitting.rule(
        y, spec.classes, lambda count: torch.randperm(count, generator=seeded_generator("groups", seed))
    )
    return cut(
        len(y),
        seed=seed,
        # a fold takes its place
        validation_size=0 if splitting.folds else options.validation_size,
        test_size=options.test_size,
        train_size=options.train_size,
        kept=_kept(y, spec, options),
        rule=rule,
        fold=splitting.part,
    )


def _kept(y: Tensor, spec: Spec, options: SplitOptions) -> Callable[[Tensor], Tensor] | None:
    """For `per_class`, which of some samples of `y` are kept."""
    count = options.per_class
    if count is None:
        return None
    if spec.classes is None:
        raise ConfigError(f"dataset.per_class={count}: a data set for {spec.task} has no classes.")
    if options.train_size is not None:
        raise ConfigError(
            f"dataset.per_class={count} and dataset.train_size={options.train_size} both say how many samples to train "
            f"on. Give one of them."
        )
    return lambda index: first_of_each_class(y[index], count)


def check_sizes(name: str, given: Collection[str], *, validation: float, test: float) -> None:
    """Raise `ConfigError` for the size of a split that is given."""
    for split, size in (("validation", validation), ("test", test)):
        if split in given and size:
            raise ConfigError(f"dataset.{split}_size={size}: the data set `{name}` has its own {split} split. Give 0.")


def first_of_each_class(y: Tensor, count: int) -> Tensor:
    """True for the first `count` samples of each class of `y` [N].

    Raises `ConfigError` if a class has fewer.

    >>> first_of_each_class(torch.tensor([1, 0, 1, 1, 0]), 2).tolist()
    [True, True, True, False, True]
    """
    sizes = torch.bincount(y.to(torch.int64))
    fewest, smallest = min((int(size), label) for label, size in enumerate(sizes) if size)
    if not 1 <= count <= fewest:
        raise ConfigError(
            f"dataset.per_class={count}: expected 1 to {fewest}, the training samples of class {smallest}."
        )
    return place_in_class(y.to(torch.int64)) < count


def sample_count(size: int | float, n: int, key: str) -> int:
    """A size as a number of samples.

    Below 1 it is a fraction of `n`. Raises `ConfigError` for a negative size, and for a fraction above 1.
    """
    if 0 <= size < 1:
        return round(size * n)
    if size < 0 or size != int(size):
        raise ConfigError(f"dataset.{key}={size}: expected a number of samples (0, 100, …), or a fraction below 1.")
    return int(size)
