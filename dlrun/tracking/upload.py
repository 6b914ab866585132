"""One run, shown: what its folder holds, while it is trained and once it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dlrun.rundir import RunDir
from dlrun.tracking import describe
from dlrun.tracking.client import MlflowRun, open_run
from dlrun.tracking.note import note
from dlrun.tracking.points import Reader
from dlrun.tracking.state import FINAL, ended, page, stamp
from dlrun.tracking.store import prepare
from dlrun.tracking.where import artifact_folder, store_uri

POLL = 0.5
"""Seconds between two looks at a folder in which a run is being trained."""
BUSY = 0.05
"""The share of the time that sending may take while a run is being trained."""


class Upload:
    """A run that is being sent. Any call may raise; a new `Upload` of the run then goes on."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.uri = store_uri(run)
        self.config = describe.configuration(run)
        prepare(self.uri, artifact_folder(run))
        self.journal = Reader(run.journal)
        self.remote = self._open()
        self.journal.skip(self.remote.progress)
        self._describe(run.summary())
        self._monitor: Any = None

    def follow(self) -> None:
        """Send what is appended until the run has ended, then the rest and its true status."""
        self._monitor = self._start_monitor()
        try:
            while True:
                over = ended(self.run)  # looked at first: what was written before the end is read after it
                began = time.monotonic()
                self._send_journal()
                if over:
                    break
                pause = max(POLL, (time.monotonic() - began) / BUSY)
                _sleep(pause, lambda: ended(self.run))
        finally:
            if self._monitor:
                self._monitor.finish()
        self.finish()

    def finish(self) -> None:
        """Send everything of a run that has ended, and note in its summary what was sent."""
        self.run.status()
        summary = self.run.summary()
        sent = stamp(self.run, summary)
        self._send_journal()
        status = summary.get("status", "killed")
        end = self.journal.last or _now()
        step = summary.get("best_step") or summary.get("steps") or 0
        curves = [name for name in summary.get("metrics") or {} if self.journal.has(name)]
        self.remote.send_finals(describe.finals(summary, curves), step=int(step), time=end)
        self._describe(summary)
        self._send_files()
        self._send_model(status)
        self.remote.close(status if status in FINAL else "killed", end)
        self.run.update(
            uploaded=True,
            uploaded_stamp=sent,
            mlflow_run_id=self.remote.run_id,
            mlflow_url=page(self.uri, self.remote.experiment_id, self.remote.run_id),
        )

    def _open(self) -> MlflowRun:
        name = f"{self.config.get('name', 'run')}-{self.run.id}"
        return open_run(
            self.uri,
            self._setting("experiment", "dlrun"),
            artifacts=artifact_folder(self.run),
            # a name is given once: whoever renames the run in MLflow keeps the new one
            tags=describe.tags(self.run, self.config, self.run.summary()) | {"mlflow.runName": name},
            start=self.journal.first or _now(),
        )

    def _describe(self, summary: dict[str, Any]) -> None:
        """Send all but the curves; said again at the end, when more is known."""
        params = describe.params(self.config)
        self.remote.send_params(params)
        tags = describe.tags(self.run, self.config, summary)
        flags = {
            "dlrun.nonfinite": "\n".join(f"{name}: {what}" for name, what in self.journal.nonfinite.items()),
            "dlrun.changed": describe.changed(params, self.remote.params),
        }
        tags |= {name: describe.shorten(value, describe.TAG) for name, value in flags.items() if value}
        self.remote.send_tags(tags)
        self.remote.send_note(note(self.run, self.config, summary, self.journal.nonfinite))
        self.remote.send_datasets(describe.datasets(summary))
        self.remote.send_files(sorted((self.run.path / ".hydra").glob("*.yaml")), "config")

    def _send_journal(self) -> None:
        for portion in self.journal.portions():
            for name, text in portion.texts:
                self.remote.send_text(name, text)
            self.remote.send_points(portion.points, portion.end)

    def _send_files(self) -> None:
        self.remote.send_files(sorted(self.run.figures.glob("*")), "figures")
        self.remote.send_files([self.run.log], "log")
        if self._setting("log_checkpoints", False):
            self.remote.send_files([self.run.last, self.run.best], "checkpoints")

    def _send_model(self, status: str) -> None:
        """Log the model of a finished run, once for each set of selected weights; a failure of it fails no more."""
        if status != "finished" or not self._setting("log_model", False):
            return
        from dlrun.tracking.model import send_model

        try:
            send_model(self.remote, self.run, self.uri)
        except Exception as error:
            print(f"The model could not be logged: {error!r}", file=sys.stderr)
            self.remote.send_tags({"dlrun.model": describe.shorten(f"not logged: {error!r}", describe.TAG)})

    def _start_monitor(self) -> Any:
        if not self._setting("system_metrics", False) or ended(self.run):
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with suppress(ImportError):  # asked for, but psutil is not installed: `check` said so
            make: Any = SystemMetricsMonitor
            monitor = make(self.remote.run_id, resume_logging=True, tracking_uri=self.uri)
            monitor.start()
            return monitor
        return None

    def _setting(self, name: str, default: Any) -> Any:
        return (self.config.get("tracking") or {}).get(name, default)


def _sleep(seconds: float, over: Callable[[], bool]) -> None:
    """Sleep, but no longer than until `over` holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(POLL, max(0.0, end - time.monotonic())))
        if over():
            return


def _now() -> int:
    return time.time_ns() // 1_000_000
