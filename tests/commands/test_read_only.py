"""Runs that may be read and not written: what reads only works, all else is one message."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from dlrun.storage import summary
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]


def forbid(*arguments: Any, **named: Any) -> Any:
    raise PermissionError(13, "Permission denied", "/theirs/file")


@pytest.fixture
def theirs(call: Call, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run of somebody else: the tests may be root's, who may write everything."""
    call("train", "trainer.fast=true", "trainer.figures=false", "tracking.enabled=false")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    return all_runs()[0]


def test_the_test_split_is_not_read_where_no_read_can_be_counted(theirs: RunDir, call: Call) -> None:
    refuses(call("test", theirs.id), "may not be written", f"dlrun test {theirs.id} --split validation")
    assert theirs.summary().test_reads == 1
    assert call("test", theirs.id, "--split", "validation").code == 0


def test_it_is_not_resumed(theirs: RunDir, call: Call) -> None:
    refuses(call("resume", theirs.id, "trainer.fast=false"), "may not be written", "copy its folder")


def test_a_killed_run_is_seen_as_that(theirs: RunDir, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with theirs.edit_summary() as content:
        content.status = "running"
    monkeypatch.setattr(summary, "edit", forbid)
    assert theirs.status() == "killed"
    assert "killed" in call("runs").out


def test_a_forbidden_file_is_one_message_in_every_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.commands.runs.query.found_runs", forbid)
    refuses(call("runs"), "/theirs/file", "Permission denied")
