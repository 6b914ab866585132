"""`dlrun data`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dlrun.commands import data
from dlrun.datasets.files import sources
from dlrun.errors import DataError, UserError
from tests.facts import says


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DLRUN_DATA", str(tmp_path / "data"))


def test_it_lists_every_data_set_with_its_state(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert data.main([]) == 0
    out = capsys.readouterr().out
    says(out, *sources.SOURCES, str(tmp_path / "data"), "not there: `dlrun data mnist` downloads 11.6 MB")
    says(out, "digits there, 0.1 MB", "licence: MIT")


def test_an_incomplete_set_is_shown_as_such(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    data.main([])
    says(capsys.readouterr().out, "incomplete, 1 of 4 files")


def test_what_is_there_is_checked_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert data.main(["--check"]) == 0
    says(capsys.readouterr().out, "digits: 1 file there and intact")
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for file in sources.MNIST.files:
        (tmp_path / "data" / "mnist" / file.name).write_bytes(b"wrong")
    with pytest.raises(DataError, match="train-images-idx3-ubyte is truncated or altered"):
        data.main(["--check"])


def test_named_sets_are_fetched_or_told_why_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.main(["moons", "digits"]) == 0
    says(capsys.readouterr().out, "moons: is computed")
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.MNIST, mirrors=("http://127.0.0.1:9/",)))
    with pytest.raises(DataError, match="lacks 4 of the 4"):
        data.main(["mnist"])


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(UserError, match="`mnits`") as caught:
        data.main(["mnits"])
    says(str(caught.value), "Did you mean `mnist`")
