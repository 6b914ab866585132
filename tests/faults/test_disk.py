"""A full disk: no point and no weight is lost, and the run goes on when there is space."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dlrun.runs.differences import differences
from dlrun.storage.files.waiting import wait_until
from tests.faults.programs import RUN, Programs

LONG = (*RUN, "trainer.steps=6000", "tracking.enabled=false")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes a superuser: run `make faults` as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_a_full_disk_costs_no_point_and_no_weight(tmp_path: Path, small_disk: Path, seconds: float) -> None:
    (tmp_path / "whole").mkdir()
    whole, small = Programs(tmp_path / "whole"), Programs(small_disk)
    whole.call(*LONG)
    process = small.start(*LONG)
    assert wait_until(lambda: bool(small.runs) and small.runs[0].last.exists(), 60, poll=0.01)
    filler = fill(small_disk)
    time.sleep(seconds)
    filler.unlink()
    said = process.communicate(timeout=120)[0]
    assert "Traceback" not in said
    if process.returncode != 0:
        small.call("resume", str(small.runs[0].path))
    assert not list(differences(small.runs[0], whole.runs[0]))
