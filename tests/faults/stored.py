"""What MLflow's tables have of a run, read without MLflow."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.storage.rundir import RunDir, outputs_above


@dataclass(frozen=True)
class Stored:
    """The SQLite store of a run, found by `place`."""

    place: Callable[[RunDir], Path]

    def status(self, run: RunDir) -> str | None:
        """MLflow's status; None if it has no run of it, or several."""
        found = self._ask(
            run, "SELECT status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid WHERE {of} AND {active}"
        )
        return str(found[0][0]) if len(found) == 1 else ("several" if found else None)

    def points(self, run: RunDir) -> list[tuple[str, int, float]]:
        """Each stored point: its name, step and value."""
        found = self._ask(
            run,
            "SELECT metrics.key, step, metrics.value, is_nan FROM metrics JOIN runs ON runs.run_uuid = metrics.run_uuid"
            " JOIN tags ON tags.run_uuid = runs.run_uuid WHERE {of} AND {active}",
        )
        return [(name, step, math.nan if nan else value) for name, step, value, nan in found]

    def _ask(self, run: RunDir, question: str) -> list[Any]:
        question = question.format(
            of="tags.key = 'dlrun.id' AND tags.value = ?", active="runs.lifecycle_stage = 'active'"
        )
        try:
            with closing(sqlite3.connect(f"file:{self.place(run)}?mode=ro", uri=True, timeout=5)) as database:
                return database.execute(question, (run.id,)).fetchall()
        except sqlite3.Error:  # not there yet, or locked
            return []


def _beside(run: RunDir) -> Path:
    outputs = outputs_above(run.path)
    assert outputs is not None
    return outputs / "mlflow.db"


local = Stored(_beside)
"""The store beside the runs."""
