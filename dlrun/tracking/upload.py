"""One run, shown: what its folder holds, while it is trained and once it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrun.storage.summary import Summary
from dlrun.tracking import describe
from dlrun.tracking.journal_reader import Point, Portion, Reader
from dlrun.tracking.mlflow import pages
from dlrun.tracking.mlflow.client import MlflowRun, noted
from dlrun.tracking.mlflow.connection import Connection
from dlrun.tracking.note import note
from dlrun.tracking.state import FINAL, attempted, ended, note_attempt, page, stamp
from dlrun.tracking.subject import Subject

POLL = 0.5
"""Seconds between two looks at a folder in which a run is being trained."""
BUSY = 0.05
"""The share of the time that sending may take while a run is being trained."""
SMALL = 100_000
"""The bytes of a journal that one transaction may hold: others wait for the store meanwhile."""


class Upload:
    """A run that is being sent, step by step: `advance` while it is trained, `finish` once it has ended.

    Any call may raise; a new `Upload` of the run then goes on.
    """

    def __init__(self, subject: Subject, connection: Connection) -> None:
        self.subject, self.run, self.connection = subject, subject.run, connection
        if ended(self.run):
            self.run.status()  # one that was killed is described as that from the start
        self.config = describe.configuration(self.run)
        self.journal = Reader(self.run.journal)
        self._params = describe.params(self.config)
        self._files: dict[Path, int] = {}
        self._monitor: Any = None
        self._begun = False

    @cached_property
    def remote(self) -> MlflowRun:
        """Return the run in MLflow, which is found or made when it is first needed."""
        remote = self._open()
        self.journal.skip(remote.progress)
        return remote

    def advance(self) -> None:
        """Send what is known of the run, and what was appended to its journal."""
        summary = self.run.summary()
        tags = self._tags(summary)
        if not self._begun:
            tags |= self.remote.note(note(self.run, self.config, summary))
            self._monitor = self._start_monitor()
            self._begun = True
        self.remote.send(params=self._params, tags=tags)
        self.remote.send_datasets(describe.datasets(summary))
        self._send_folder(self.run.path / ".hydra", "config")
        for portion in self._portions():
            self.remote.send(portion.points, end=portion.end)

    def finish(self) -> None:
        """Send everything of a run that has ended, and note in its folder what was sent."""
        self.close()
        status = self.run.status()
        summary = self.run.summary()
        sent = stamp(self.run, summary)
        with self._transaction():
            self._send_rest(summary)
            self.remote.send_datasets(describe.datasets(summary))
            self._send_files()
            self._send_model(status)
            self.remote.close(status if status in FINAL else "killed", self.journal.last or _now())
        remote = self.remote
        with self.subject.edit() as noted:
            noted.uploaded, noted.uploaded_stamp = True, sent
            noted.mlflow_run_id = remote.run_id
            noted.mlflow_url = page(self.connection.uri, pages.of_run(remote.experiment_id, remote.run_id))

    def close(self) -> None:
        """Stop what runs beside the sending."""
        if self._monitor:
            self._monitor.finish()
            self._monitor = None

    def _open(self) -> MlflowRun:
        summary = self.run.summary()
        # a name is given once: whoever renames the run in MLflow keeps the new one
        name = self.subject.name or f"{self.config.get('name', 'run')}-{self.subject.id}"
        text = note(self.run, self.config, summary)
        new = self._new()
        note_attempt(self.subject.home)
        return self.connection.open_run(
            self._experiment,
            tags=self._tags(summary) | noted(text) | {"mlflow.runName": name},
            start=self.journal.first or round((summary.started or time.time()) * 1000),
            new=new,
        )

    def _new(self) -> bool:
        """Return whether nobody can have made the run in MLflow."""
        return not attempted(self.subject.home) and not self.subject.noted().mlflow_run_id

    @property
    def _experiment(self) -> str:
        return str(self._setting("experiment", "dlrun"))

    def _transaction(self) -> AbstractContextManager[None]:
        """Return what makes one transaction of a run that has ended before anything of it was sent, if it is small."""
        alone = not self._setting("log_model", False) and not self._setting("system_metrics", False)
        # its experiment is no part of it: others may wait for that
        self.connection.experiment(self._experiment)
        if alone and self._new() and self.run.journal.exists() and self.run.journal.stat().st_size < SMALL:
            return self.connection.together()
        return nullcontext()

    def _tags(self, summary: Summary) -> dict[str, str]:
        tags = describe.tags(self.run, self.config, summary)
        return tags | {"dlrun.id": self.subject.id} | dict(self.subject.tags)

    def _portions(self) -> Iterator[Portion]:
        for portion in self.journal.portions():
            for name, text in portion.texts:
                self.remote.send_text(name, text)
            yield portion

    def _send_rest(self, summary: Summary) -> None:
        """Send the last points together with all that is known at the end."""
        last = Portion(end=self.remote.progress)  # which opens the run, and the journal where it was sent up to
        for portion in self._portions():
            if last.points:
                self.remote.send(last.points, end=last.end)
            last = portion
        flags = {
            "dlrun.nonfinite": "\n".join(f"{name}: {what}" for name, what in self.journal.nonfinite.items()),
            "dlrun.changed": describe.changed(self._params, self.remote.params),
        }
        tags = self._tags(summary) | {n: describe.shorten(text, describe.TAG) for n, text in flags.items() if text}
        tags |= self.remote.note(note(self.run, self.config, summary, self.journal))
        points = last.points + self.remote.lacking(self._finals(summary))
        self.remote.send(points, params=self._params, tags=tags, end=last.end)

    def _finals(self, summary: Summary) -> list[Point]:
        """Return the summary's metrics that have no curve, as points at the selected step."""
        curves = [name for name in summary.metrics if self.journal.has(name)]
        step = summary.best_step or summary.steps or 0
        time = self.journal.last or _now()
        return [Point(name, value, time, step) for name, value in describe.finals(summary, curves).items()]

    def _send_files(self) -> None:
        self._send_folder(self.run.path / ".hydra", "config")
        self._send_folder(self.run.figures, "figures")
        self._send_folder(self.run.path / "profile", "profile")
        self._send_each([self.run.log], "log")
        if self._setting("log_checkpoints", False):
            self._send_each([self.run.last, self.run.best], "checkpoints")

    def _send_folder(self, files: Path, folder: str) -> None:
        """Send a folder, unless it was sent as it is."""
        altered = [file for file in (files.iterdir() if files.is_dir() else ()) if self._altered(file)]
        if altered:
            self.remote.send_folder(files, folder)

    def _send_each(self, files: Sequence[Path], folder: str) -> None:
        for file in files:
            if file.is_file() and self._altered(file):
                self.remote.send_file(file, folder)

    def _altered(self, file: Path) -> bool:
        """Return whether a file is new or was written since this was asked."""
        before, now = self._files.get(file), file.stat().st_mtime_ns
        self._files[file] = now
        return before != now

    def _send_model(self, status: str) -> None:
        """Log the model of a finished run, once for each set of selected weights; a failure of it fails no more."""
        if status != "finished" or self.subject.reused or not self._setting("log_model", False):
            return
        from dlrun.tracking.mlflow.model import send_model

        try:
            send_model(self.remote, self.run, self.connection.uri)
        except Exception as error:
            print(f"The model could not be logged: {error!r}", file=sys.stderr)
            self.remote.send(tags={"dlrun.model": describe.shorten(f"not logged: {error!r}", describe.TAG)})

    def _start_monitor(self) -> Any:
        if not self._setting("system_metrics", False) or ended(self.run):
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with suppress(ImportError):  # asked for, but psutil is not installed: `check` said so
            make: Any = SystemMetricsMonitor
            monitor = make(self.remote.run_id, resume_logging=True, tracking_uri=self.connection.uri)
            monitor.start()
            return monitor
        return None

    def _setting(self, name: str, default: Any) -> Any:
        return (self.config.get("tracking") or {}).get(name, default)


def follow(upload: Upload) -> None:
    """Send what is appended until the run has ended, then the rest and its true status."""
    try:
        while not ended(upload.run):
            began = time.monotonic()
            upload.advance()
            pause(max(POLL, (time.monotonic() - began) / BUSY), lambda: ended(upload.run))
    finally:
        upload.close()
    upload.finish()


def pause(seconds: float, over: Callable[[], bool]) -> None:
    """Sleep, but no longer than until `over` holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(POLL, max(0.0, end - time.monotonic())))
        if over():
            return


def _now() -> int:
    return time.time_ns() // 1_000_000
