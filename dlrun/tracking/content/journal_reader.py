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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dlrun.storage.files.opening import open_regular
from dlrun.storage.journal import ADVICE, Line, parse

# MLflow takes a thousand things in one call, and a hundred params and as many tags may go along
BATCH = 800


class Point(NamedTuple):
    """A point of a curve; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


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


class JournalReader:
    """A journal, read on from its beginning or from `skip`.

    `nonfinite` maps each metric to the first step at which it was NaN or infinite. `sample` is the last text with a
    step. `first` and `last` are the time of the first line and the latest of all, in milliseconds since 1970.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()
        first = next((record for record, _ in self._records()), Line())
        self.first: int | None = _time(first) if "time" in first else None
        self.last = self.first

    def _restart(self, *, compare: bool = False) -> None:
        self.nonfinite: dict[str, str] = {}
        self.sample: Text | None = None
        self.offset = 0
        self.compare = compare
        self._digest = hashlib.blake2b(digest_size=8)
        # by curve, its steps in order: an array takes 8 bytes each, a list of ints 36
        self._steps: dict[str, array[int]] = {}

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
            batch.points += points
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
        return name in self._steps

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
        # the latest: a clock that is set back must not end a run before it began
        self.last = max(self.last or time, time)
        if record.get("event") == "text":
            text = Text(str(record.get("name", "text")), str(record.get("text", "")), record.get("step"), time)
            if text.step is None:
                return [], [text]
            self.sample = text
            return [], [text] if self._add(f"text {text.name}", text.step) else []
        if "metrics" not in record:
            return [], []
        step = int(record["step"])
        values = record["metrics"] | ({"epoch": record["epoch"]} if "epoch" in record else {})
        # without those of earlier lines: a resumed run logs some steps again
        points = [Point(name, float(value), time, step) for name, value in values.items() if self._add(name, step)]
        for point in points:
            if not math.isfinite(point.value):
                self.nonfinite.setdefault(point.name, f"{point.value} at step {step}")
        return points, []

    def _add(self, name: str, step: int) -> bool:
        """Add a step to a curve; False if already there."""
        steps = self._steps.setdefault(name, array("q"))
        if not steps or step > steps[-1]:  # nearly always
            steps.append(step)
            return True
        place = bisect_left(steps, step)
        if steps[place] == step:
            return False
        steps.insert(place, step)
        return True


def _time(record: Line) -> int:
    milliseconds: int = round(record["time"] * 1000)
    return milliseconds
