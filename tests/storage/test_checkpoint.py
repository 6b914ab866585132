"""Checkpoints: what is read is what was written, and files of other versions are read or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun.engine.state import State
from dlrun.errors import DamagedFile, UserError
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights, Checkpoint

LAST = Checkpoint(model={"w": torch.ones(2)}, optimizer={"steps": 3}, average=[torch.zeros(2)], state={"step": 3})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(path, LAST)
    found = checkpoint.load(path)
    assert (found.step, found.optimizer, found.state) == (3, {"steps": 3}, {"step": 3})
    assert torch.equal(found.model["w"], torch.ones(2))
    assert checkpoint.load_model(path).keys() == {"w"}
    fields = {"format", "model", "optimizer", "average", "state", "own", "observers", "stream", "kept"}
    assert torch.load(path, weights_only=True).keys() == fields


def test_a_key_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save(BestWeights(2, {"val/loss": 0.5}, {}).to_dict() | {"of_a_later_version": 1}, path)
    assert checkpoint.load_best(path) == BestWeights(2, {"val/loss": 0.5}, {})


def test_a_file_that_lacks_something_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, BestWeights(2, {}, {}))
    with pytest.raises(UserError, match="optimizer"):
        checkpoint.load(path)
    torch.save({"format": 1, "state": {}}, path)
    with pytest.raises(UserError, match="model"):
        checkpoint.load_model(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", torch.zeros(2)),
        ("model", [1]),
        ("model", {1: torch.zeros(1)}),
        ("optimizer", None),
        ("average", [1.0]),
        ("state", {"step": "x"}),
        ("state", {}),
    ],
)
def test_an_odd_value_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, LAST)
    torch.save(torch.load(path, weights_only=True) | {key: value}, path)
    with pytest.raises(UserError, match=r"last\.pt is"):
        checkpoint.load(path)


@pytest.mark.parametrize("value", [{"window": "x"}, {"window": [1]}, {"best_rank": [1.0]}, {"waited": torch.zeros(2)}])
def test_an_odd_state_is_none_of_the_run(tmp_path: Path, value: dict[str, Any]) -> None:
    with pytest.raises(DamagedFile), checkpoint.taking(tmp_path / "last.pt"):
        State.from_dict({"step": 1} | value)
