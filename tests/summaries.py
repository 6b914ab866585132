"""Summaries as a test wants them."""

from __future__ import annotations

from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir


def summarise(folder: RunDir | SweepDir, **values: Any) -> None:
    """Set values of a folder's summary."""
    with folder.edit_summary() as summary:
        summary.update(values)
