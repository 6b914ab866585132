"""From the journal's lines to portions that MLflow takes in one call.

A portion ends at a byte of the journal, which is sent along as the progress: who starts again from
there, after any interruption, sends nothing twice and leaves nothing out.
"""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PORTION = 800
"""The most points of one call: MLflow takes a thousand things, and a hundred params and as many tags may go along."""


class Point(NamedTuple):
    """One value of a curve; `time` is in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


@dataclass
class Portion:
    """What lies between two bytes of the journal; `end` is the second."""

    points: list[Point] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    end: int = 0


class Reader:
    """The journal, read from its begin or, after `skip`, from where it was sent up to.

    `nonfinite` maps each metric to the first step at which it was NaN or infinite; `sample` is the last
    text of a step, and the step; `first` and `last` are the times of the first and the last line, in
    milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self.nonfinite: dict[str, str] = {}
        self.sample: tuple[int, str] | None = None
        self.offset = 0
        self._path = path
        self._steps: dict[str, array[int]] = {}
        self.first = self.last = next((_time(record) for record, _ in self._records()), None)

    def skip(self, sent: int) -> None:
        """Go to byte `sent`; the lines before it are read only to know which points were sent."""
        for record, end in self._records():
            if end > sent:
                break
            self._points(record)
            self.offset = end

    def portions(self) -> Iterator[Portion]:
        """Yield what was appended since, in portions of at most `PORTION` points, but whole lines."""
        portion = Portion(end=self.offset)
        for record, end in self._records():
            points = self._points(record)
            if portion.points and len(portion.points) + len(points) > PORTION:
                yield portion
                portion = Portion(end=self.offset)
            portion.points += points
            if record.get("event") == "text":
                portion.texts.append((_place(record), str(record.get("text", ""))))
            portion.end = self.offset = end
        if portion.points or portion.texts:
            yield portion

    def has(self, name: str) -> bool:
        """Return whether the journal has a curve of that name."""
        return name in self._steps

    def _records(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each whole line from the offset on, and the byte behind it; a cut line is an empty record."""
        if not self._path.exists():
            return
        end = self.offset
        with self._path.open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                try:
                    record = json.loads(line)
                except ValueError:
                    record = {}
                yield record if isinstance(record, dict) else {}, end

    def _points(self, record: dict[str, Any]) -> list[Point]:
        """Return the points of a line that no line before has; a resumed run logs some again."""
        time = _time(record)
        if time is None:
            return []
        self.last = time
        if record.get("event") == "text" and "step" in record:
            self.sample = int(record["step"]), str(record.get("text", ""))
        if "metrics" not in record:
            return []
        step = int(record["step"])
        values = record["metrics"] | ({"epoch": record["epoch"]} if "epoch" in record else {})
        points = [Point(name, float(value), time, step) for name, value in values.items() if self._new(name, step)]
        for point in points:
            if not math.isfinite(point.value):
                self.nonfinite.setdefault(point.name, f"{point.value} at step {step}")
        return points

    def _new(self, name: str, step: int) -> bool:
        """Note a step of a curve; return whether it was not there."""
        steps = self._steps.setdefault(name, array("q"))
        if not steps or step > steps[-1]:
            steps.append(step)
            return True
        place = bisect_left(steps, step)
        if steps[place] == step:
            return False
        steps.insert(place, step)
        return True


def _place(record: dict[str, Any]) -> str:
    """Return where a text is kept: that of a step among others of its name, in the order of the steps."""
    name = str(record.get("name", "text"))
    return f"{name}/step-{int(record['step']):06d}" if "step" in record else f"texts/{name}"


def _time(record: dict[str, Any]) -> int | None:
    """Return a line's time in milliseconds; a line that was cut has none."""
    return round(record["time"] * 1000) if "time" in record else None
