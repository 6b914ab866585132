"""Paths that are no UTF-8, on their way to a tracker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlrun.storage.rundir import RunDir
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.mlflow import uri

ODD = os.fsdecode(b"caf\xe9")


def test_texts_of_a_tracker_are_utf8() -> None:
    sent = Metadata({f"dataset.{ODD}": ODD}, {"dlrun.folder": f"/{ODD}"}, description=f"Its folder: `/{ODD}`")
    assert sent.params == {r"dataset.caf\udce9": r"caf\udce9"}
    assert sent.tags == {"dlrun.folder": r"/caf\udce9"}
    assert sent.description == r"Its folder: `/caf\udce9`"


def test_the_store_of_a_folder_without_a_plain_name_is_reached_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outputs = tmp_path / ODD
    run = RunDir(outputs / "runs" / "2026-01-01" / "120000-a-abcdefgh")
    run.path.mkdir(parents=True)
    file, artifacts = uri.sqlite_file(uri.store_address(run)), uri.artifact_folder(run)
    assert file is not None
    file.touch()
    assert (outputs / "mlflow.db").exists() and str(file).isascii()
    assert artifacts.parent.samefile(outputs) and "%" not in artifacts.as_uri()
