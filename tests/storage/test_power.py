"""What a run or sweep goes on from is forced to the disk: a power cut takes what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Called

QUICK = ("dataset=moons", "model=linear", "trainer.steps=3", "trainer.figures=false", "tracking.enabled=false")
COMMANDS = {
    "run": ("train", *QUICK),
    # with a reference, so that the configuration is kept twice
    "references": ("train", *QUICK, "trainer.batch_size=${trainer.log_every}", "trainer.log_every=10"),
    "sweep": ("train", "-m", *QUICK, "hydra/launcher=batched", "sweep.figures=false", "seed=0,1"),
}
LOSABLE = (".lock", ".summary.lock", "train.log", "sweep.log", "journal.jsonl", "report")
"""What is made anew, or appended: the journal is forced before each checkpoint."""


@pytest.mark.parametrize("command", COMMANDS)
def test_all_that_a_folder_is_read_from_is_forced_to_the_disk(
    call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    forced: dict[int, int] = {}
    force = os.fsync

    def fsync(descriptor: int) -> None:
        force(descriptor)
        found = os.fstat(descriptor)
        forced[found.st_ino] = found.st_mtime_ns

    monkeypatch.setattr(os, "fsync", fsync)
    done = call(*COMMANDS[command])
    assert done.code == 0, done.err
    files = [path for path in Path("outputs").rglob("*") if path.is_file() and not {*LOSABLE} & {*path.parts}]
    names = {path.name for path in files}
    assert {"config.yaml", "overrides.yaml", "summary.json", "last.pt"} <= names
    assert {"manifest.json", "multirun.yaml"} <= names or command != "sweep"
    written_later = [str(path) for path in files if forced.get(path.stat().st_ino) != path.stat().st_mtime_ns]
    assert not written_later
    # nor are the names of the files and folders lost
    assert all(path.stat().st_ino in forced for path in {file.parent for file in files})
