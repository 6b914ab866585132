"""The journal's lines, read in batches, each one call of a tracker.

A batch ends at a byte of the journal, and the tracker stores that byte as its progress. An uploader that starts
again from there, after any interruption, sends nothing twice and leaves nothing out. A digest of all before that byte
goes with it: a journal that was set back (a backup, a power cut) is read from its start, and compared point by point.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from dlrun.storage.files.opening import open_regular
from dlrun.storage.journal import ADVICE, Line, parse

# MLflow takes a thousand things in one call, and a hundred params and as many tags may go along
BATCH = 800


class Point(NamedTuple):
    """A point of a curve; `time` in milliseconds since 1970.

    `replaces`: there may be an earlier one of its step, which it replaces. Its time is later than that one's.
    """

    name: str
    value: float
    time: int
    step: int
    replaces: bool = False


class Text(NamedTuple):
    """A logged text; with a step, one of a series."""

    name: str
    text: str
    step: int | None
    time: int


class Mark(NamedTuple):
    """A tracker's progress: it has a journal up to byte `end`; `digest` is of all before.

    `compare`: the tracker may have points of lines that the journal has lost, so that each further one is looked for.

    >>> Mark.parse(str(Mark(120, "1f2e", True)))
    Mark(end=120, digest='1f2e', compare=True)
    >>> Mark.parse("120"), Mark.parse("") == Mark()
    (Mark(end=120, digest='', compare=False), True)
    """

    end: int = 0
    digest: str = ""  # of marks of earlier versions it is not known
    compare: bool = False

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Read a mark; an unreadable one fits no journal."""
        end, digest, *compare = [*text.split(), "", ""]
        if end and not end.isdecimal():
            return cls(0, "unknown", True)
        return cls(int(end or 0), digest, "compare" in compare)

    def __str__(self) -> str:
        return " ".join([str(self.end), self.digest, *["compare"] * self.compare])


START = Mark()


@dataclass
class MetricBatch:
    """Points and texts of successive lines, up to `mark`."""

    points: list[Point] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    mark: Mark = START

    def add(self, points: Sequence[Point]) -> None:
        """Add a line's points, in place of those that they replace."""
        if any(point.replaces for point in points):
            found = {(point.name, point.step): point for point in (*self.points, *points)}
            self.points = list(found.values())
        else:
            self.points += points


class Put(Enum):
    """A point beside those that a curve had: of a new step, or of one with the same or another value."""

    NEW = auto()
    SAME = auto()
    OTHER = auto()


class _Curve:
    """The steps of a curve in order, and the last value of each."""

    def __init__(self) -> None:
        # arrays take 8 bytes a number, lists 32
        self.steps = array("q")
        self.values = array("d")

    def put(self, step: int, value: float) -> Put:
        if not self.steps or step > self.steps[-1]:  # nearly always
            self.steps.append(step)
            self.values.append(value)
            return Put.NEW
        place = bisect_left(self.steps, step)
        if self.steps[place] != step:
            self.steps.insert(place, step)
            self.values.insert(place, value)
            return Put.NEW
        before, self.values[place] = self.values[place], value
        # a resumed run logs steps again, nearly always the same: NaN equals NaN here
        return Put.SAME if before == value or (before != before and value != value) else Put.OTHER

    def first_nonfinite(self) -> str | None:
        """In words, the first value that is NaN or infinite."""
        found = zip(self.steps, self.values, strict=True)
        return next((f"{value} at step {step}" for step, value in found if not math.isfinite(value)), None)


class JournalReader:
    """A journal, read on from its beginning or from `skip`.

    Of two points of one name and step, the later counts. `sample` is the last text with a step. `first` and `last` are
    the time of the first line and the latest of all, in milliseconds since 1970.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.first: int | None = None
        self._restart()
        first = next((record for record, _ in self._records()), Line())
        self.last = self.first = _time(first) if "time" in first else None

    def _restart(self, *, compare: bool = False) -> None:
        self.last = self.first
        self.sample: Text | None = None
        self.offset = 0
        self.compare = compare
        self._digest = hashlib.blake2b(digest_size=8)
        # by name; of texts, the values are checksums
        self._curves: dict[str, _Curve] = {}
        self._nonfinite: dict[str, None] = {}  # an ordered set

    def skip(self, sent: Mark) -> None:
        """Go to a tracker's mark.

        Without such a mark in this journal, go to its start, and have each point looked for.
        """
        for record, line in self._records():
            if self.offset + len(line) > sent.end:
                break
            # a resumed run logs some of this again
            self._read(record)
            self._advance(line)
        mark = self.mark
        if mark.end == sent.end and sent.digest in ("", mark.digest):
            self.compare = sent.compare
        else:
            self._restart(compare=True)

    def batches(self) -> Iterator[MetricBatch]:
        """Yield the lines appended since, in batches."""
        batch = MetricBatch()
        for record, line in self._records():
            points, texts = self._read(record)
            # no line is cut: a tracker's progress is the end of one
            if batch.points and len(batch.points) + len(points) > BATCH:
                batch.mark = self.mark
                yield batch
                batch = MetricBatch()
            batch.add(points)
            batch.texts += texts
            self._advance(line)
        if batch.points or batch.texts:
            batch.mark = self.mark
            yield batch

    @property
    def mark(self) -> Mark:
        """The mark of the lines read so far."""
        return Mark(self.offset, self._digest.hexdigest(), self.compare)

    def has(self, name: str) -> bool:
        """Whether the lines read so far have a metric."""
        return name in self._curves

    @property
    def nonfinite(self) -> dict[str, str]:
        """By metric, its first value that is NaN or infinite."""
        found = {name: self._curves[name].first_nonfinite() for name in self._nonfinite}
        return {name: value for name, value in found.items() if value}

    def _advance(self, line: bytes) -> None:
        self.offset += len(line)
        self._digest.update(line)

    def _records(self) -> Iterator[tuple[Line, bytes]]:
        """Yield each whole new line, read and as it is."""
        if not self._path.exists():
            return
        with open_regular(self._path, "rb", advice=ADVICE) as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                yield parse(line), line

    def _read(self, record: Line) -> tuple[list[Point], list[Text]]:
        """The new points and texts of a line."""
        if "time" not in record:  # cut by a crash
            return [], []
        time = _time(record)
        # trackers that keep both of two points show that of the later time
        later = time if self.last is None else max(time, self.last + 1)
        # a clock that is set back must not end a run before it began
        self.last = max(self.last or time, time)
        if record.get("event") == "text":
            text = Text(str(record.get("name", "text")), str(record.get("text", "")), record.get("step"), time)
            if text.step is None:
                return [], [text]
            self.sample = text
            checksum = float(crc32(text.text.encode(errors="surrogatepass")))
            return [], [text] if self._put(f"text {text.name}", text.step, checksum) is not Put.SAME else []
        if "metrics" not in record:
            return [], []
        step = int(record["step"])
        values = record["metrics"] | ({"epoch": record["epoch"]} if "epoch" in record else {})
        points = []
        for name, given in values.items():
            value = float(given)
            put = self._put(name, step, value)
            if put is Put.NEW:
                points.append(Point(name, value, time, step))
            elif put is Put.OTHER:
                self.last = max(self.last, later)
                points.append(Point(name, value, later, step, replaces=True))
        return points, []

    def _put(self, name: str, step: int, value: float) -> Put:
        if not math.isfinite(value):
            self._nonfinite[name] = None
        curve = self._curves.get(name)
        if curve is None:
            curve = self._curves[name] = _Curve()
        return curve.put(step, value)


def _time(record: Line) -> int:
    milliseconds: int = round(record["time"] * 1000)
    return milliseconds
