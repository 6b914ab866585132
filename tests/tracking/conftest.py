"""An empty outputs folder, and what fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlrun.storage.manifest import Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from tests.summaries import summarise
from tests.tracking.folders import CONFIG, MakeRun, MakeSweep, job


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.fixture
def make_run(outputs: Path) -> MakeRun:
    def make(name: str = "ab12cd", config: str = CONFIG, **summary: Any) -> RunDir:
        run = RunDir(outputs / "runs" / "2026-11-22" / f"120000-mnist-{name}")
        (run.path / ".hydra").mkdir(parents=True)
        run.config.write_text(config)
        data = {"name": "mnist", "fingerprint": "f" * 64, "train": 55000, "validation": 5000, "test": 10000}
        summarise(run, **{"status": "running", "command": "dlrun train seed=0", "data": data, "seed": 0} | summary)
        return run

    return make


@pytest.fixture
def make_sweep(outputs: Path) -> MakeSweep:
    def make(rates: int = 2, seeds: int = 2, name: str = "feed") -> SweepDir:
        sweep = SweepDir(outputs / "sweeps" / "2026-11-23" / f"120000-digits-{name}")
        sweep.path.mkdir(parents=True)
        jobs = [job(n, rate=10.0 ** -(n // seeds), seed=n % seeds) for n in range(rates * seeds)]
        asked = {"overrides": ["optimizer.lr=1,0.1", f"seed=range({seeds})"]}
        command = "dlrun train -m optimizer.lr=1,0.1"
        Manifest("digits", "d" * 16, asked, command, 1.0, "val/error", False, "final", jobs=tuple(jobs)).write(sweep)
        summarise(sweep, status="running")
        return sweep

    return make
