"""The journal: appended, never torn, read while it grows."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from dlrun.errors import DamagedFile
from dlrun.storage.journal import Journal, check_not_emptied, curves, read


def test_points_and_events_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.event("start", resumed_from=None)
    journal.metrics(10, 0.5, {"train/loss": 1.25, "lr": 0.1})
    records, offset = read(tmp_path / "journal.jsonl")
    assert [r.get("event") for r in records] == ["start", None]
    journal.metrics(20, 1.0, {"train/loss": 1.0})
    more, _ = read(tmp_path / "journal.jsonl", offset)
    journal.close()
    assert [r["step"] for r in more] == [20]
    assert curves(tmp_path / "journal.jsonl")["train/loss"] == [(10, 1.25), (20, 1.0)]


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics(1, 0.1, {"a": math.inf, "b": -math.inf, "c": math.nan})
    journal.close()
    found = {name: curve[0][1] for name, curve in curves(tmp_path / "journal.jsonl").items()}
    assert found["a"] == math.inf
    assert found["b"] == -math.inf
    assert math.isnan(found["c"])


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"step": 1, "metrics": {"a": 1.0}}\n{"step": 2, "met')
    assert [r["step"] for r in read(path)[0]] == [1]
    journal = Journal(path)
    journal.metrics(2, 0.2, {"a": 2.0})
    journal.close()
    assert curves(path)["a"] == [(1, 1.0), (2, 2.0)]


def test_of_two_points_of_one_step_the_later_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for value in (1.0, 2.0):
        journal.metrics(5, 0.5, {"a": value})
    journal.close()
    assert curves(tmp_path / "journal.jsonl")["a"] == [(5, 2.0)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full (Linux)")
def test_on_a_full_disk_lines_wait_and_the_loss_is_not_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a device, which no run may have
    monkeypatch.setattr("dlrun.storage.files.opening.stat.S_ISREG", bool)
    journal = Journal(Path("/dev/full"))
    journal.metrics(1, 0.1, {"a": 1.0})
    journal.metrics(2, 0.2, {"a": 1.0})
    assert capsys.readouterr().err.count("cannot be written") == 1
    with pytest.raises(OSError, match="No space left") as error:
        journal.close()
    assert error.value.errno == errno.ENOSPC


def test_an_empty_journal_of_a_run_with_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    check_not_emptied(path, 100)
    path.touch()
    check_not_emptied(path, 0)
    with pytest.raises(DamagedFile, match="is damaged"):
        check_not_emptied(path, 100)
    path.write_text('{"event": "start", "time": 1.5}\n')
    check_not_emptied(path, 100)
