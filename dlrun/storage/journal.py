"""The journal: one JSON object a line, appended, of everything that a run logged.

Its lines are `Line`s. Appending is all that training does about tracking.
JSON has no NaN and no infinity: they are the strings "nan", "inf" and "-inf". A resumed run goes on from its
checkpoint, behind which there may be points already: of two points of one name and step, readers take the later.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from dlrun.errors import DamagedFile
from dlrun.storage.files.json_text import NOT_FINITE
from dlrun.storage.files.opening import open_regular
from dlrun.storage.files.record import is_finite
from dlrun.terminal import output

ADVICE = "Put a copy of it back. To go on without its points, delete it first."
TAIL = 1 << 16
"""Bytes in which the last point of a journal is looked for."""
LATEST = 1e11
"""A time in the year 5138: one beyond it is no time."""

Curves = dict[str, list[tuple[int, float]]]
"""Points (step, value) by the metric's name."""


class Line(TypedDict, total=False):
    """A point of the curves, or an event."""

    # seconds since 1970
    time: float

    # a point; of an event "text" the step of its text, where there is one of many steps
    step: int
    epoch: float
    metrics: dict[str, float | str]

    event: Literal["start", "test_read", "text", "end"]
    # start: the step of the checkpoint; None for a new run
    resumed_from: int | None
    # start: the time of the run's first start, as in its summary
    started: float
    # test_read, written before the test split is read: the reads so far
    reads: int
    # the id of the sweep that had selected the run, or whose job was tested by hand
    sweep: str
    by_hand: bool
    # text: something to read
    name: str
    text: str
    # end
    status: str
    error: str


class Journal:
    """An open journal.

    On a full disk the lines wait in memory and training goes on.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path, "ab", buffering=0)
        # end a line that a crash has cut, so that it spoils no other
        self._waiting = b"\n" if _torn(path) else b""
        self._warned = False
        # the thread that writes a checkpoint during training syncs the journal too
        self._lock = threading.Lock()

    def metrics(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one point of the curves."""
        encoded = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._append({"step": step, "epoch": round(epoch, 6), "time": round(time.time(), 3), "metrics": encoded})

    def event(self, kind: str, **fields: Any) -> None:
        """Append an event."""
        self._append({"event": kind, "time": round(time.time(), 3), **fields})

    def sync(self) -> None:
        """Force the lines to the disk, from any thread.

        Raises `OSError` if the disk is full.
        """
        self._drain()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the waiting lines, and close.

        Raises `OSError` if the disk is still full: they are lost.
        """
        try:
            self._drain()
        finally:
            self._file.close()

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._lock:
            # kept until it is written: on a full disk lines wait, and none is lost or cut
            self._waiting += line
        self._flush()

    def _flush(self) -> None:
        try:
            self._drain()
        except OSError as error:
            if not self._warned:
                output.warn(f"The journal cannot be written ({error}); its lines wait in memory and are tried again.")
            self._warned = True

    def _drain(self) -> None:
        with self._lock:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal, and close it at the end."""
    journal = Journal(path)
    try:
        yield journal
    except BaseException:
        # a full disk must not hide the exception that ended the block
        try:
            journal.close()
        except OSError as full:
            output.warn(f"The last lines of the journal are lost: {full}")
        raise
    journal.close()


def _torn(path: Path) -> bool:
    with open_regular(path, "rb", advice=ADVICE) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return bool(file.read() != b"\n")


def check_not_emptied(path: Path, step: int) -> None:
    """Raise `DamagedFile` if a journal is empty, though its run has a checkpoint of `step`."""
    if step and path.exists() and not read(path)[0]:
        advice = f"Put a copy of it back. To go on without the points of those steps, type `rm {path}` first."
        raise DamagedFile(path, f"it has no line, and the checkpoint is of step {step}", advice)


def read(path: Path, offset: int = 0) -> tuple[list[Line], int]:
    """The whole lines from byte `offset` on.

    Returns them with the offset after the last.
    """
    if not path.exists():
        return [], offset
    with open_regular(path, "rb", advice=ADVICE) as file:
        file.seek(offset)
        content = file.read()
    # the run may be in the middle of a line: it is read the next time
    whole = content[: content.rfind(b"\n") + 1]
    return [record for line in whole.splitlines() if (record := parse(line))], offset + len(whole)


def parse(line: bytes) -> Line:
    """One line; empty if it is damaged.

    Cut by a crash, say, or by a disk: the lines around it still count.
    """
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return Line()
    return cast("Line", record) if _is_line(record) else Line()


def curves(path: Path) -> Curves:
    """Each metric's points in the order of the steps."""
    found: dict[str, dict[int, float]] = {}
    for line in read(path)[0]:
        for name, value in line.get("metrics", {}).items():
            # a resumed run repeats steps: the later point counts
            found.setdefault(name, {})[line["step"]] = float(value)
    return {name: sorted(curve.items()) for name, curve in found.items()}


def last_step(path: Path) -> int | None:
    """The step of the last point; None without any among the last lines."""
    size = path.stat().st_size if path.exists() else 0
    lines, _ = read(path, max(0, size - TAIL))
    return next((line["step"] for line in reversed(lines) if "metrics" in line), None)


def last_cost(path: Path) -> dict[str, float]:
    """The cost at the last training point, by name without `cost/`; empty without any among the last lines."""
    size = path.stat().st_size if path.exists() else 0
    for line in reversed(read(path, max(0, size - TAIL))[0]):
        if found := {name: float(value) for name, value in line.get("metrics", {}).items() if name.startswith("cost/")}:
            return {name.removeprefix("cost/"): value for name, value in found.items()}
    return {}


def validations(path: Path, step: int) -> list[dict[str, float]]:
    """The logged validations after `step` steps; several if the run was resumed before it."""
    found = [line["metrics"] for line in read(path)[0] if "metrics" in line and line["step"] == step]
    return [
        {name: float(value) for name, value in metrics.items()}
        for metrics in found
        if any(name.startswith("val/") for name in metrics)
    ]


def count_test_reads(path: Path) -> int:
    """The reads of the test split that a journal has."""
    return sum(line.get("event") == "test_read" for line in read(path)[0])


def first_start(path: Path) -> float | None:
    """When the run was first started, as its summary had it; None if the journal does not say it."""
    known = (line.get("started") for line in read(path)[0])
    return next((time for time in known if _is_number(time)), None)


def _is_line(record: Any) -> bool:
    """True for the types of `Line`, so that readers need not look."""
    if not isinstance(record, dict) or not _is_number(time := record.get("time", 0.0)) or abs(time) > LATEST:
        return False
    if "metrics" not in record:
        return isinstance(record.get("event"), str) and (record.get("step") is None or _is_step(record["step"]))
    metrics = record["metrics"]
    return (
        _is_step(record.get("step"))
        and _is_number(record.get("epoch", 0.0))
        and isinstance(metrics, dict)
        and all(_is_number(value) or value in NOT_FINITE for value in metrics.values())
    )


def _is_step(value: Any) -> bool:
    # trackers have steps of 64 bits
    return isinstance(value, int) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    # true and false are ints in Python
    return is_finite(value) and not isinstance(value, bool)
