"""Rules of splits, compared with scikit-learn's splitters: by class, by group, by time, in folds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, StratifiedKFold, StratifiedShuffleSplit, TimeSeriesSplit

from dlrun.datasets import from_tensors
from dlrun.datasets.digits import digits
from dlrun.datasets.splitting.cut import SplitIndices, cut
from dlrun.datasets.splitting.rules import AtRandom, Grouped, InTime, Stratified
from dlrun.errors import ConfigError, DataError
from dlrun.storage.identity import essential
from tests.facts import says

N = 997
DRAW = np.random.default_rng(0)
CLASSES = torch.from_numpy(DRAW.choice(5, N, p=[0.5, 0.3, 0.1, 0.08, 0.02]))
GROUPS = torch.from_numpy(DRAW.integers(0, 60, N) // DRAW.integers(1, 4, N))


def is_partition(index: SplitIndices) -> bool:
    return torch.equal(torch.cat(index).sort().values, torch.arange(N))


def grouped(seed: int = 0) -> Grouped:
    numbers = torch.unique(GROUPS, return_inverse=True)[1]
    order = torch.randperm(int(numbers.max()) + 1, generator=torch.Generator().manual_seed(seed))
    return Grouped(numbers, order)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.5])
def test_stratified_splits_have_scikit_learn_s_counts(share: float) -> None:
    index = cut(N, seed=3, test_size=share, validation_size=0.2, rule=Stratified(CLASSES))
    assert is_partition(index)
    [(_, test)] = StratifiedShuffleSplit(1, test_size=round(share * N), random_state=0).split(CLASSES, CLASSES)
    ours, theirs = (np.bincount(CLASSES[part], minlength=5) for part in (index.test, torch.from_numpy(test)))
    # ties of remainders are broken at random there
    assert np.abs(ours - theirs).max() <= 1 and ours.sum() == theirs.sum()
    for part in index:
        exact = np.bincount(CLASSES) * len(part) / N
        assert np.abs(np.bincount(CLASSES[part], minlength=5) - exact).max() <= 1.01


def test_stratified_folds_are_sized_as_scikit_learn_s_and_share_the_test_split() -> None:
    folds = [cut(N, seed=1, test_size=0.1, rule=Stratified(CLASSES), fold=(5, k)) for k in range(5)]
    assert all(is_partition(index) for index in folds)
    assert all(torch.equal(index.test, folds[0].test) for index in folds)
    held = torch.cat([index.validation for index in folds]).sort().values
    assert torch.equal(held, torch.cat([folds[0].train, folds[0].validation]).sort().values)
    y = CLASSES[held]
    theirs = np.array([np.bincount(y[test], minlength=5) for _, test in StratifiedKFold(5).split(y, y)])
    ours = np.array([np.bincount(CLASSES[index.validation], minlength=5) for index in folds])
    # which fold has one more is a matter of the classes' order
    assert np.array_equal(np.sort(ours, 0), np.sort(theirs, 0))
    assert np.array_equal(np.sort(ours.sum(1)), np.sort(theirs.sum(1)))


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits(seed: int) -> None:
    rule = grouped(seed)
    index = cut(N, seed=seed, test_size=0.15, validation_size=0.15, rule=rule)
    assert is_partition(index)
    for one, other in combinations(index, 2):
        assert not {*GROUPS[one].tolist()} & {*GROUPS[other].tolist()}
    largest = int(np.bincount(rule.groups).max())
    assert abs(len(index.test) - 0.15 * N) <= largest and abs(len(index.validation) - 0.15 * N) <= largest
    few = cut(N, seed=seed, test_size=0.15, validation_size=0.15, train_size=50, rule=rule)
    assert len(few.train) == 50 and {*few.train.tolist()} <= {*index.train.tolist()}


def test_folds_of_groups_are_sized_as_scikit_learn_s() -> None:
    folds = [cut(N, seed=0, rule=grouped(), fold=(4, k)) for k in range(4)]
    held = [{*GROUPS[index.validation].tolist()} for index in folds]
    assert not any(one & other for one, other in combinations(held, 2)) and len(set().union(*held)) == len(
        {*GROUPS.tolist()}
    )
    theirs = [len(test) for _, test in GroupKFold(4).split(GROUPS, groups=GROUPS)]
    assert sorted(len(index.validation) for index in folds) == sorted(theirs)


def test_training_is_before_validation_and_that_before_the_test() -> None:
    time = torch.from_numpy(DRAW.integers(0, 200, N)).double()
    index = cut(N, seed=0, test_size=0.2, validation_size=0.2, rule=InTime(time))
    assert is_partition(index)
    assert time[index.train].max() < time[index.validation].min() <= time[index.validation].max()
    assert time[index.validation].max() < time[index.test].min()
    assert abs(len(index.test) - 0.2 * N) <= int(np.bincount(time.long()).max())
    recent = cut(N, seed=0, test_size=0.2, validation_size=0.2, train_size=10, rule=InTime(time))
    assert time[recent.train].min() >= time[index.train].sort().values[-10]


def test_folds_in_time_are_scikit_learn_s() -> None:
    place = torch.from_numpy(DRAW.permutation(N))
    by_time = place.argsort()
    for k, (train, test) in enumerate(TimeSeriesSplit(5).split(np.arange(N))):
        index = cut(N, seed=0, rule=InTime(place.double()), fold=(5, k))
        assert torch.equal(index.train, by_time[torch.from_numpy(train)].sort().values)
        assert torch.equal(index.validation, by_time[torch.from_numpy(test)].sort().values)


def test_plain_splits_are_those_of_before() -> None:
    """The order of a seed is drawn at once: test, validation, the rest."""
    index = cut(50, seed=7, test_size=10, validation_size=5)
    assert torch.equal(index.test, cut(50, seed=7, test_size=10, validation_size=5, rule=AtRandom()).test)
    folds = [cut(50, seed=7, test_size=10, fold=(4, k)) for k in range(4)]
    assert all(torch.equal(each.test, index.test) and len(each.validation) == 10 for each in folds)
    assert len({*torch.cat([each.validation for each in folds]).tolist()}) == 40


def made(**options):
    x = torch.arange(60.0)[:, None]
    return from_tensors("mine", (x, torch.arange(60) % 3), task="classification", **options)


def test_a_data_set_of_one_s_own_is_split_so_too() -> None:
    names = np.repeat([f"patient {i}" for i in range(12)], 5)
    data = made(groups=names, validation_size=0.2, test_size=0.2)
    held = [{*(part.x[:, 0] // 5).tolist()} for part in (data.train, data.validation, data.test)]
    assert not any(one & other for one, other in combinations(held, 2)) and sum(map(len, held)) == 12
    late = made(times=np.arange(60)[::-1], validation_size=0.2, test_size=0.2)
    assert late.test.x[:, 0].max() < late.validation.x[:, 0].min()
    large = made(times=2**60 + np.arange(60), validation_size=0.2, test_size=0.2)  # float64 has one number for them
    assert torch.equal(large.train.x, made(times=np.arange(60), validation_size=0.2, test_size=0.2).train.x)
    even = made(stratify=True, test_size=12, folds=4, fold=1)
    assert torch.bincount(even.validation.y).tolist() == [4, 4, 4]
    assert even.fingerprint != made(stratify=True, test_size=12, folds=4, fold=2).fingerprint


@pytest.mark.parametrize(
    ("wrong", "facts"),
    [
        ({"folds": 5}, ["dataset.fold=null", "range(5)"]),
        ({"folds": 5, "fold": 5}, ["0 to 4"]),
        ({"folds": 1, "fold": 0}, ["at least 2"]),
        ({"folds": 100, "fold": 99}, ["would have none"]),
        ({"stratify": True, "times": range(60)}, ["time", "stratify", "Give one"]),
        ({"groups": [0] * 60, "test_size": 0.2}, ["1 group", "too few"]),
        ({"groups": [0, 1] * 30, "folds": 5, "fold": 0}, ["2 groups"]),
        ({"times": [1] * 60, "test_size": 0.2}, ["one time"]),
        ({"groups": [0] * 10}, ["[10]", "[60]"]),
        ({"times": [float("nan")] * 60}, ["finite"]),
        ({"times": np.array(["NaT"] * 60, "datetime64[D]")}, ["NaT"]),
        ({"groups": [*range(50), *[float("nan")] * 10]}, ["10 samples are missing"]),
    ],
)
def test_what_cannot_be_split_so_is_refused(wrong: dict, facts: list[str]) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        made(**wrong)
    says(str(error.value), *facts)


def test_digits_have_strata_and_folds_and_runs_without_keep_their_identity() -> None:
    folds = [digits(stratify=True, folds=5, fold=k) for k in range(5)]
    assert len({each.split_fingerprints["test"] for each in folds}) == 1
    assert sum(len(each.validation) for each in folds) == 1497
    counts = torch.stack([torch.bincount(each.validation.y) for each in folds])
    assert int((counts.amax(0) - counts.amin(0)).max()) <= 1
    new = {"stratify": False, "folds": None, "fold": None}
    assert essential({"dataset": new | {"split_seed": 0}}) == essential({"dataset": {"split_seed": 0}})
    assert essential({"dataset": new | {"folds": 5, "fold": 0}}) != essential({"dataset": {}})


def test_values_have_no_strata_and_a_given_split_no_folds() -> None:
    x = torch.randn(20, 2)
    with pytest.raises(ConfigError, match="stratify"):
        from_tensors("mine", (x, x[:, :1]), task="regression", stratify=True)
    with pytest.raises(ConfigError, match="own validation"):
        from_tensors("mine", (x, x), (x, x), task="regression", folds=2, fold=0)
