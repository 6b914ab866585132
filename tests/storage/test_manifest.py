"""The manifest of a sweep, and the jobs that a search adds to it line by line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dlrun.errors import DamagedFile
from dlrun.storage import manifest
from dlrun.storage.jobs.job import Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.sweepdir import SweepDir


def job(n: int) -> Job:
    config = {"seed": 0, "optimizer": {"lr": 0.1 * n, "betas": [0.9, math.inf]}}
    return Job(n, (f"optimizer.lr={0.1 * n}",), config, identity=str(n), group=f"g{n}", validation="v")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    made = SweepDir(tmp_path)
    Manifest("made", "d" * 64, {}, "", 0.0, "val/error", False, "final", jobs=(job(0),)).write(made)
    return made


def test_added_jobs_are_read_with_the_manifest_s_and_become_part_of_it(sweep: SweepDir) -> None:
    before = sweep.manifest.read_bytes()
    for n in (1, 2):
        manifest.add(sweep, [job(n)])
    assert sweep.manifest.read_bytes() == before
    found = manifest.read(sweep)
    assert found.jobs == (job(0), job(1), job(2))
    found.write(sweep)
    assert not sweep.added.exists()
    assert manifest.read(sweep) == found


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_job_whose_line_a_kill_has_cut_is_not_there_and_is_added_again(sweep: SweepDir, cut: int) -> None:
    manifest.add(sweep, [job(1)])
    whole = sweep.added.read_bytes()
    manifest.add(sweep, [job(2)])
    sweep.added.write_bytes(whole + sweep.added.read_bytes()[len(whole) :][:-cut])
    assert manifest.read(sweep).jobs == (job(0), job(1))
    # another one than was cut, as a search may propose it
    manifest.add(sweep, [replace(job(2), identity="another")])
    manifest.add(sweep, [job(3)])
    assert [each.identity for each in manifest.read(sweep).jobs] == ["0", "1", "another", "3"]


def test_lines_that_a_kill_has_left_beside_the_whole_manifest_count_once(sweep: SweepDir) -> None:
    manifest.add(sweep, [job(1)])
    left = sweep.added.read_bytes()
    manifest.read(sweep).write(sweep)
    sweep.added.write_bytes(left)
    assert manifest.read(sweep).jobs == (job(0), job(1))


def test_an_altered_or_a_lost_line_is_said(sweep: SweepDir) -> None:
    manifest.add(sweep, [job(1), job(2)])
    lines = sweep.added.read_text().splitlines(keepends=True)
    sweep.added.write_text(lines[1])
    with pytest.raises(DamagedFile, match="job 1 is nowhere"):
        manifest.read(sweep)
    sweep.added.write_text(lines[0].replace('"identity": "1"', '"identity": "7"') + lines[1])
    with pytest.raises(DamagedFile, match="altered"):
        manifest.read(sweep)
    sweep.added.unlink()
    manifest.add(sweep, [replace(job(1), config={"seed": "many"})])
    with pytest.raises(DamagedFile, match=r"config\.seed"):
        manifest.read(sweep)
