"""Random splits for training, validation and test, by a seed of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.rules import AtRandom, Rule
from dlrun.errors import ConfigError, DataError
from dlrun.terminal.format import counted
from dlrun.types import Spec


class SplitIndices(NamedTuple):
    """The disjoint indices of three splits, int64, ascending."""

    train: Tensor
    validation: Tensor
    test: Tensor


def seeded_generator(purpose: str, seed: int) -> torch.Generator:
    """A generator for one `purpose` and seed.

    Two purposes share no numbers, even with equal seeds.

    >>> a, b = seeded_generator("moons", 0), seeded_generator("split", 0)
    >>> a.initial_seed() == b.initial_seed()
    False
    """
    # 7 bytes: torch takes seeds up to 64 bits with a sign
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def cut(
    n: int,
    *,
    seed: int,
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    kept: Callable[[Tensor], Tensor] | None = None,
    rule: Rule | None = None,
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


class SplitOptions(Protocol):
    """What `cut_by` asks of the options of a data set."""

    @property
    def validation_size(self) -> int | float:
        """A number of samples, or below 1 a fraction."""

    @property
    def test_size(self) -> int | float:
        """Likewise."""

    @property
    def train_size(self) -> int | None:
        """Of the rest; None: all."""

    @property
    def per_class(self) -> int | None:
        """Likewise of each class."""

    @property
    def split_seed(self) -> int:
        """It draws them."""

    @property
    def splitting(self) -> Splitting:
        """The rule, and the folds."""


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
    # the place of each sample among those of its class
    order = y.argsort(stable=True)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
    places = torch.empty_like(order)
    places[order] = torch.arange(len(y)) - starts[y[order].to(torch.int64)]
    return places < count


def hold_out(
    name: str,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    classes: Sequence[int],
    known: int | None,
    seed: int,
    test_size: int | float = 0,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Leave `classes` to the test split, and the others to training and validation.

    A data set without a test split gets one: `test_size` samples of these classes, or that fraction of them. Raises
    `ConfigError` for classes that are none of the `known` ones, and for sizes out of range.

    >>> pairs = hold_out("mine", {"train": (torch.arange(9), torch.arange(9) % 3)}, [2], known=3, seed=0, test_size=2)
    >>> pairs["train"][1].tolist(), pairs["test"][1].tolist()
    ([0, 1, 0, 1, 0, 1], [2, 2])
    """
    given = f"dataset.held_out_classes={[*classes]}"
    if known is None:
        raise ConfigError(f"{given}: the data set {name} has no classes.")
    if not classes or any(not 0 <= each < known for each in classes) or len({*classes}) < len(classes):
        raise ConfigError(f"{given}: expected different classes by number, 0 to {known - 1}, or null.")
    if known - len(classes) < 2:
        raise ConfigError(f"{given}: of {known} classes at least 2 are to train on.")
    apart = {split: torch.isin(y.to(torch.int64), torch.tensor([*classes])) for split, (_, y) in pairs.items()}
    test = apart.get("test", apart["train"]).nonzero()[:, 0]
    if "test" not in pairs:
        number = sample_count(test_size, len(test), "test_size")
        if number > len(test):
            raise ConfigError(
                f"dataset.test_size={test_size}: the classes held out have {counted(len(test), 'sample')}. Type "
                f"dataset.test_size={len(test)} for all of them, or a smaller number."
            )
        test = test[torch.randperm(len(test), generator=seeded_generator("held out", seed))[:number].sort().values]
    kept = {split: (~apart[split]).nonzero()[:, 0] for split in pairs if split != "test"}
    found = {split: (pairs[split][0][index], pairs[split][1][index]) for split, index in kept.items()}
    x, y = pairs.get("test", pairs["train"])
    return found | ({"test": (x[test], y[test])} if len(test) else {})


def sample_count(size: int | float, n: int, key: str) -> int:
    """A size as a number of samples.

    Below 1 it is a fraction of `n`. Raises `ConfigError` for a negative size, and for a fraction above 1.
    """
    if 0 <= size < 1:
        return round(size * n)
    if size < 0 or size != int(size):
        raise ConfigError(f"dataset.{key}={size}: expected a number of samples (0, 100, …), or a fraction below 1.")
    return int(size)
