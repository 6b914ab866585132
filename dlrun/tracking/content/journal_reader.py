"""The journal's lines, read in batches, each one call of a tracker.

A batch ends at a byte of the journal, and the tracker stores that byte as its progress. An uploader that starts
again from there, after any interruption, sends nothing twice and leaves nothing out.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dlrun.storage.journal import Line, parse

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


@dataclass
class MetricBatch:
    """Points and texts of successive lines, up to byte `end`."""

    points: list[Point] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    end: int = 0


class JournalReader:
    """A journal, read on from its beginning or from `skip`.

    `nonfinite` maps each metric to the first step at which it was NaN or infinite. `sample` is the last text with a
    step. `first` and `last` are the time of the first line and the latest of all, in milliseconds since 1970.
    """

    def __init__(self, path: Path) -> None:
        self.nonfinite: dict[str, str] = {}
        self.sample: Text | None = None
        self.offset = 0
        self._path = path
        # by curve, its steps in order: an array takes 8 bytes each, a list of ints 36
        self._steps: dict[str, array[int]] = {}
        first = next((record for record, _ in self._records()), Line())
        self.first: int | None = _time(first) if "time" in first else None
        self.last = self.first

    def skip(self, sent: int) -> None:
        """Go to byte `sent`."""
        for record, end in self._records():
            if end > sent:
                break
            # a resumed run logs some of this again
            self._read(record)
            self.offset = end

    def batches(self) -> Iterator[MetricBatch]:
        """Yield the lines appended since, in batches."""
        batch = MetricBatch(end=self.offset)
        for record, end in self._records():
            points, texts = self._read(record)
            # no line is cut: a tracker's progress is the end of one
            if batch.points and len(batch.points) + len(points) > BATCH:
                yield batch
                batch = MetricBatch(end=self.offset)
            batch.points += points
            batch.texts += texts
            batch.end = self.offset = end
        if batch.points or batch.texts:
            yield batch

    def has(self, name: str) -> bool:
        """Whether the lines read so far have a metric."""
        return name in self._steps

    def _records(self) -> Iterator[tuple[Line, int]]:
        """Yield each whole new line, and the byte behind it."""
        if not self._path.exists():
            return
        end = self.offset
        with self._path.open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                end += len(line)
                yield parse(line), end

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
