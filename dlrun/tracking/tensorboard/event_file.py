"""TensorBoard's event files, written in batches: a killed writer leaves none by half.

A record is its length (8 bytes), a checksum of that (4), a serialized `Event`, and a checksum of it (4).
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from dlrun.storage.files.replacing import write_atomically
from dlrun.tracking.content.journal_reader import Mark

# the format, which the first event of a file must name
VERSION = "brain.Event:2"
MARK = "dlrun.progress "


class EventFile:
    """An event file that grows by whole batches.

    A batch ends with a mark: an event that TensorBoard passes over, with the journal's mark up to which the file has
    it. What lies behind the last mark is of a batch that was cut by a kill; opening the file removes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.progress = Mark()
        # by tag, the last step and value
        self._last: dict[str, tuple[int, float]] = {}
        self._sorted = True
        self._points: dict[tuple[str, int], float | str] | None = None
        end = self._read()
        self._file = path.open("ab", buffering=0)
        self._file.truncate(end)
        self._empty = end == 0

    def append(self, events: Sequence[Any], progress: Mark) -> None:
        """Append a batch; after an error, open the file anew."""
        if not events and progress == self.progress:
            return
        time = events[-1].wall_time if events else 0.0
        first = [Event(wall_time=time, file_version=VERSION)] if self._empty else []
        mark = Event(wall_time=time, session_log=SessionLog(status=SessionLog.CHECKPOINT, msg=f"{MARK}{progress}"))
        content = encode([*first, *events, mark])
        # a full disk may take a part and raise then: the next opening removes it
        while content:
            content = content[self._file.write(content) :]
        self._empty = False
        for event in events:
            self._note(event)
        self.progress = progress

    def has(self, tag: str, step: int, value: float | None = None) -> bool:
        """Whether a curve has this step, and there this value."""
        if tag not in self._last:
            return False
        # seldom asked: for the final values, and if the journal was set back
        if self._points is None:
            events = [event for event, _ in decode(self._path)]
            shown = [(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]
            self._points = {(name, at): _single(single) for name, at, single in shown}
        stored = self._points.get((tag, step))
        return stored is not None and (value is None or stored == _single(value))

    def close(self) -> None:
        """Write the file through to the disk."""
        if self._file.closed:
            return
        os.fsync(self._file.fileno())
        self._file.close()
        if not self._sorted:
            self._sort()

    def _read(self) -> int:
        """Read the file; returns the byte behind its last mark."""
        end, since = 0, []
        for event, after in decode(self._path):
            since.append(event)
            if event.session_log.msg.startswith(MARK):
                end, self.progress = after, Mark.parse(event.session_log.msg.removeprefix(MARK))
                for earlier in since:
                    self._note(earlier)
                since = []
        return end

    def _note(self, event: Any) -> None:
        for value in event.summary.value:
            before = self._last.get(value.tag)
            if before and event.step <= before[0]:
                self._sorted = False
            else:
                self._last[value.tag] = event.step, value.simple_value

    def _sort(self) -> None:
        # A resumed run with another `trainer.log_every` logs steps between those that it had logged. TensorBoard takes
        # a step that goes back for a restart, and hides what came before.
        # the marks between the batches are of no use any more
        events = [event for event, _ in decode(self._path)]
        version, mark = events[0], events[-1]
        # of two points of one step the later counts
        curves = {(value.tag, event.step): event for event in events for value in event.summary.value}
        ordered = sorted(curves.values(), key=lambda event: int(event.step))
        write_atomically(self._path, encode([version, *ordered, mark]))
        self._sorted = True


def _single(value: float) -> float | str:
    # the file holds values of 32 bits; NaN equals NaN here
    return "nan" if math.isnan(value) else ctypes.c_float(value).value


def scalar(tag: str, value: float, *, step: int, time: float) -> Any:
    """A point of a curve; `time` in seconds since 1970."""
    return Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def encode(events: Sequence[Any]) -> bytes:
    """The records of events."""
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def decode(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield each whole event, and the byte behind it."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        # the checksums are not looked at: a kill cuts a file, and changes no byte
        while len(header := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", header[:8])
            content = file.read(length + 4)
            if len(content) < length + 4:
                return
            end += 12 + len(content)
            yield Event.FromString(content[:length]), end
