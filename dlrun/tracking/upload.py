"""One run, sent to one tracker: while it is trained, and once it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from dlrun.errors import DamagedFile
from dlrun.storage.files.links import is_shared, leads_out, links_out
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.summary import Summary
from dlrun.terminal import output
from dlrun.tracking.content import description, metadata
from dlrun.tracking.content.journal_reader import JournalReader, MetricBatch, Point
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.run_source import RunSource
from dlrun.tracking.content.state import FINAL, Stamp, has_ended, run_stamp
from dlrun.tracking.tracker import Connection, TrackedRun, Tracker

# seconds between two looks at a folder in which a run is being trained
POLL = 0.5
# the share of the time that sending may take meanwhile
BUSY = 0.05


class RunUpload:
    """The sending of a run: `advance` often, `finish` once.

    Any call may raise; a new `RunUpload` of the run then goes on.
    """

    def __init__(self, source: RunSource, tracker: Tracker, connection: Connection) -> None:
        self.source, self.run, self.tracker, self.connection = source, source.run, tracker, connection
        self.run.status()  # a killed run is described as that from the start
        for file in (self.run.journal, self.run.config):
            if leads_out(file, self.run.path):
                raise DamagedFile(file, "it is a link out of the run's folder", "Put the file itself there.")
        self.journal = JournalReader(self.run.journal)
        self._params = metadata.params(source.config)
        self._files: dict[Path, int] = {}
        self._described = False
        self._opened: TrackedRun | None = None

    @property
    def remote(self) -> TrackedRun:
        """The run at the tracker."""
        assert self._opened is not None  # `_open` comes first
        return self._opened

    def _open(self, summary: Summary) -> TrackedRun:
        """The run at the tracker, opened when first needed."""
        if self._opened is not None:
            return self._opened
        start = self.journal.first or round((summary.started or time.time()) * 1000)
        remote = self.connection.open_run(self.source, self._metadata(summary, describe=True), start=start)
        self.journal.skip(remote.progress)
        self._opened = remote
        return remote

    def advance(self) -> None:
        """Send the metadata, and the journal's new lines."""
        summary = self.run.summary()
        remote = self._open(summary)
        remote.send(self._metadata(summary, describe=not self._described))
        self._described = True
        self._send_changed(self.run.path / ".hydra", "config")
        for batch in self._batches():
            remote.send(batch=batch)

    def finish(self) -> None:
        """Send the rest of an ended run, and record it."""
        status = self.run.status()
        summary = self.run.summary()
        # taken first: what is appended while this sends must be seen as lacking
        stamp = self._stamp(summary)
        with self.connection.transaction(self.source):
            self._send_rest(summary)
            self._send_files()
            self.remote.finish(status if status in FINAL else "killed", self.journal.last or _now())
        self.close()
        with self.source.edit_record() as record:
            record.update(self.remote.record())
            # a run that was resumed meanwhile has its own uploads to come
            if stamp == self._stamp(self.run.summary()):
                record.mark_sent(self.tracker.name, stamp.now)

    def _stamp(self, summary: Summary) -> Stamp:
        return run_stamp(self.run, summary, self.tracker.location(self.run))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _metadata(self, summary: Summary, *, describe: bool) -> Metadata:
        text = description.describe(self.run, self.source.config, summary) if describe else ""
        return Metadata(self._params, self._tags(summary), metadata.datasets(summary), text)

    def _tags(self, summary: Summary) -> dict[str, str]:
        tags = metadata.tags(self.run, self.source.config, summary)
        kind = "job" if self.source.sweep else "run"
        return tags | {"dlrun.id": self.source.id, "dlrun.kind": kind} | dict(self.source.tags)

    def _send_rest(self, summary: Summary) -> None:
        """Send the last batch together with the final metadata."""
        remote = self._open(summary)
        # held back for the metadata: a small run takes one call less
        last = MetricBatch(mark=remote.progress)
        for batch in self._batches():
            if last.points or last.texts:
                remote.send(batch=last)
            last = batch
        # the weights of this step may have been evaluated before, to a slightly other value
        last.points += [point._replace(replaces=True) for point in remote.missing(self._finals(summary))]
        tags = self._tags(summary)
        if self.journal.nonfinite:
            tags["dlrun.nonfinite"] = "\n".join(f"{name}: {value}" for name, value in self.journal.nonfinite.items())
        text = description.describe(self.run, self.source.config, summary, self.journal)
        remote.send(Metadata(self._params, tags, metadata.datasets(summary), text), last)

    def _batches(self) -> Iterator[MetricBatch]:
        for batch in self.journal.batches():
            if self.journal.compare:
                missing = {*self.remote.missing(batch.points)}
                # another value of the step may be there
                batch.points = [p._replace(replaces=True) for p in batch.points if p.replaces or p in missing]
            yield batch

    def _finals(self, summary: Summary) -> list[Point]:
        """The selected values, and the summary's metrics without a curve, at the selected step."""
        step = summary.best_step or summary.steps or 0
        time = self.journal.last or _now()
        # a curve's own points stay as they were logged
        found = {n: v for n, v in summary.metrics.items() if not self.journal.has(n)}
        if self.tracker.sorts:
            # pages show a curve's last value and sort by it: what was selected needs a metric of its own
            best = {f"best/{n}": v for n, v in summary.metrics.items() if n.startswith(("train/", "val/"))}
            # in the section `train` there are only curves
            found = best | {n: v for n, v in found.items() if not n.startswith("train/")}
        return [Point(name, float(value), time, step) for name, value in found.items() if value is not None]

    def _send_files(self) -> None:
        self._send_changed(self.run.path / ".hydra", "config")
        self._send_changed(self.run.figures, "figures")
        for folder in (self.run.path / "observers").glob("*"):
            self._send_changed(folder, f"observers/{folder.name}")
        self._send_changed(self.run.path / "profile", "profile")
        self._send_changed(self.run.log, "log")
        if self.source.setting("log_checkpoints", False):
            self._send_changed(self.run.last, "checkpoints")
            self._send_changed(self.run.best, "checkpoints")

    def _send_changed(self, path: Path, folder: str) -> None:
        """Send a file or folder, if it has changed."""
        files = list(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        times = {file: file.stat().st_mtime_ns for file in files}
        if any(self._files.get(file) != time for file, time in times.items()):
            send_within(self.remote, path, folder, home=self.run.path)
            self._files |= times


def send_within(remote: TrackedRun, path: Path, folder: str, *, home: Path) -> None:
    """Send a file or folder of `home`, without what links out of it lead to, and without hard links."""
    if leads_out(path, home):
        return
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    shared = [file for file in files if is_shared(file)]
    for file in shared:
        # dlrun makes none: in a received folder it is a file of elsewhere under a name of the run's
        output.warn(f"{file} is a hard link and is not sent. If it is the run's own, replace it by a copy.")
    if not shared and not any(links_out(path)):
        remote.send_files(path, folder)
        return
    for file in files:
        if file not in shared and not leads_out(file, home):
            remote.send_files(file, folder if file == path else str(Path(folder, file.relative_to(path).parent)))


def follow(upload: RunUpload) -> None:
    """Send a run as it grows, then its true status."""
    try:
        while not has_ended(upload.run):
            began = time.monotonic()
            upload.advance()
            rest = max(POLL, (time.monotonic() - began) / BUSY)
            wait_until(lambda: has_ended(upload.run), rest, poll=POLL)
        upload.finish()
    finally:
        upload.close()


def _now() -> int:
    return time.time_ns() // 1_000_000
