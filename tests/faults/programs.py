"""Whole programs of dlrun in a folder, and MLflow's points beside the journal's."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dlrun.storage import journal
from dlrun.storage.rundir import RunDir

RUN = ("train", "+experiment=digits", "trainer.figures=false", "trainer.log_every=10", "trainer.checkpoint_every=200")


@dataclass(frozen=True)
class Programs:
    """Programs that run in `here`; `uri` is the address of MLflow's server, if there is one."""

    here: Path
    uri: str | None = None

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        environment |= {"MLFLOW_TRACKING_URI": self.uri} if self.uri else {}
        command = [sys.executable, "-m", "dlrun", *words]
        return subprocess.Popen(
            command, cwd=self.here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def call(self, *words: str, code: int = 0) -> str:
        """What a program prints; asserts its exit code."""
        with self.start(*words) as process:
            said = process.communicate(timeout=300)[0]
        assert process.returncode == code, said
        assert "Traceback" not in said, said
        return said

    @property
    def runs(self) -> list[RunDir]:
        return [RunDir(path.parent) for path in sorted(self.here.glob("outputs/runs/*/*/.hydra"))]

    def check_store(self, run: RunDir, store: Path) -> None:
        """Assert that MLflow has one run of it, finished, with each point of the journal once."""
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            found = database.execute(
                "SELECT runs.run_uuid, status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid"
                " WHERE tags.key = 'dlrun.id' AND tags.value = ? AND lifecycle_stage = 'active'",
                (run.id,),
            ).fetchall()
            assert [status for _, status in found] == ["FINISHED"]
            rows = database.execute("SELECT key, step FROM metrics WHERE run_uuid = ?", (found[0][0],)).fetchall()
        stored = Counter(row for row in rows if row[0] != "epoch")
        logged = {(name, step) for name, points in journal.curves(run.journal).items() for step, _ in points}
        assert logged <= set(stored), sorted(logged - set(stored))[:5]
        assert max(stored.values()) == 1


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
