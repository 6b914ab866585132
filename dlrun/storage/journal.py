"""The journal: one JSON object a line, appended, of everything that a run logged.

A line is a point of the curves, `{"step", "epoch", "time", "metrics": {name: value}}`, or an event,
`{"event", "time", …}`:

    start      the process began to train: `resumed_from` (a step, or null), `pid`
    test_read  the test split was about to be read: `reads`
    text       something to read: `name`, `text`, and `step` where there is one of many steps
    end        the run ended: `status`

Appending is all that training does about tracking. Numbers that JSON lacks are the strings "nan",
"inf" and "-inf". A resumed run goes on from its checkpoint, behind which there may be points
already: of two points of one name and step, readers take the later.
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
from typing import Any

from dlrun.terminal import output


class Journal:
    """An open journal. On a full disk the lines wait in memory and training goes on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        # a line that was cut by a crash ends here, so that it spoils no other
        self._waiting = b"\n" if _torn(path) else b""
        self._warned = False
        # a checkpoint that is written beside training has the journal written through too
        self._lock = threading.Lock()

    def metrics(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one point of the curves."""
        encoded = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._append({"step": step, "epoch": round(epoch, 6), "time": round(time.time(), 3), "metrics": encoded})

    def event(self, kind: str, **fields: Any) -> None:
        """Append an event."""
        self._append({"event": kind, "time": round(time.time(), 3)} | fields)

    def sync(self) -> None:
        """Have the lines written through to the disk itself, from any thread; raise `OSError` if they cannot be."""
        self._drain()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what waits, and close.

        Raises `OSError` if the disk is still full: what waited is then lost, and it must not be silent.
        """
        try:
            self._drain()
        finally:
            self._file.close()

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._lock:
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
def closed(journal: Journal) -> Iterator[Journal]:
    """Close a journal at the end; that its last lines are lost must not hide why the block ended."""
    try:
        yield journal
    except BaseException:
        try:
            journal.close()
        except OSError as full:
            output.warn(f"The last lines of the journal are lost: {full}")
        raise
    journal.close()


def _torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines from byte `offset` on, and the offset behind the last of them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    records = []
    for line in whole.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # cut by a crash
            continue
        if isinstance(record, dict):
            records.append(record)
    return records, offset + len(whole)


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each metric's points (step, value) in the order of the steps."""
    points: dict[str, dict[int, float]] = {}
    for record in read(path)[0]:
        for name, value in record.get("metrics", {}).items():
            points.setdefault(name, {})[record["step"]] = float(value)
    return {name: sorted(curve.items()) for name, curve in points.items()}
