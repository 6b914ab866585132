"""A run in TensorBoard: a folder of two event files, one of the run as a whole and one of its curves.

The first is replaced when the run changes: TensorBoard keeps the first settings and status that a file holds. Its name
sorts before that of the curves, which TensorBoard goes on reading while they grow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from dlrun.storage.files.replacing import write_atomically
from dlrun.tracking.content.journal_reader import Mark, MetricBatch, Point
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.tensorboard.event_file import VERSION, EventFile, encode, scalar

SETTINGS_FILE = "events.out.tfevents.0.settings"
CURVES = "events.out.tfevents.1.curves"
# keys that change no result
IGNORED = ("tracking.", "sweep.", "trusted")


class TensorboardRun:
    """A run or sweep as a folder of event files."""

    def __init__(self, folder: Path, name: str, *, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._start = folder, name, start / 1000  # TensorBoard counts in seconds
        self._curves = EventFile(folder / CURVES)
        self._metadata = Metadata()

    @property
    def progress(self) -> Mark:
        return self._curves.progress

    def send(self, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        if batch:
            points = [scalar(p.name, p.value, step=p.step, time=p.time / 1000) for p in batch.points]
            # as blocks of code, for TensorBoard reads Markdown
            texts = [_text_event(t.name, _as_code(t.text), step=t.step or 0, time=t.time / 1000) for t in batch.texts]
            self._curves.append([*points, *texts], batch.mark)
        # the settings do not change meanwhile: the file is replaced only where there is a new description
        if metadata and metadata.description:
            self._metadata = metadata
            self._write_settings()

    def missing(self, points: Sequence[Point]) -> list[Point]:
        return [p for p in points if not self._curves.has(p.name, p.step, p.value)]

    def send_files(self, path: Path, folder: str) -> None:
        """Do nothing: TensorBoard shows no files."""

    def mark_selected(self, jobs: Mapping[str, str]) -> None:
        """Do nothing: the description names the selection."""

    def finish(self, status: str, end: int) -> None:
        session = SessionEndInfo(
            status=STATUS_SUCCESS if status == "finished" else STATUS_FAILURE, end_time_secs=end / 1000
        )
        self._write_settings(_end(session))
        self.close()

    def record(self) -> dict[str, str | None]:
        return {}

    def close(self) -> None:
        self._curves.close()

    def _write_settings(self, *more: Summary) -> None:
        events = [Event(wall_time=self._start, file_version=VERSION)]
        if self._metadata.params:
            settings = hparams_pb(_values(self._metadata.params), trial_id=self._name, start_time_secs=self._start)
            more = (settings, *more)
        events += [Event(wall_time=self._start, summary=summary) for summary in more]
        events += [_text_event("description", self._metadata.description, step=0, time=self._start)]
        content = encode(events)
        path = self._folder / SETTINGS_FILE
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def _end(session: SessionEndInfo) -> Summary:
    plugin = hparams.create_summary_metadata(HParamsPluginData(session_end_info=session))
    value = Summary.Value(tag=hparams.SESSION_END_INFO_TAG, metadata=plugin, tensor=hparams.NULL_TENSOR)
    return Summary(value=[value])


def _text_event(tag: str, text: str, *, step: int, time: float) -> Any:
    return Event(wall_time=time, step=step, summary=text_pb(tag, text))


def _as_code(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _values(params: Mapping[str, str]) -> dict[str, bool | float | str]:
    """Params as TensorBoard sorts them: numbers as numbers."""
    found: dict[str, bool | float | str] = {}
    for name, text in params.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not name.startswith(IGNORED):
            found[name] = value if isinstance(value, bool | int | float) else text
    return found
