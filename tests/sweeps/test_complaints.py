"""Mistakes in the jobs of a sweep, in one message."""

from __future__ import annotations

from dlrun.sweeps.jobs.complaints import describe_complaints


def test_messages_that_differ_in_their_numbers_are_one() -> None:
    folds = {f"the training split has {30 + k} samples": [f"fold={k}"] for k in range(4)}
    said = describe_complaints({**folds, "seed: abc is no number": ["seed=abc", "seed=abd"]}, 6)
    assert said.splitlines() == [
        "6 of 6 jobs cannot run, so none was started:",
        "fold=0 (and 3 more, with other numbers): the training split has 30 samples",
        "seed=abc (and 1 more): seed: abc is no number",
    ]


def test_a_few_messages_are_all_listed() -> None:
    said = describe_complaints({"lr=-1": ["a"], "lr=-2": ["b"]}, 3)
    assert said.splitlines()[1:] == ["a: lr=-1", "b: lr=-2"]
    assert describe_complaints({"lr=-1": ["a"]}, 1) == "lr=-1"
