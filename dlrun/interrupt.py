"""Ctrl-C, SIGTERM and SIGUSR1 as a request: finish the step, save, and end.

SIGUSR1 is how a search prunes a run. A second Ctrl-C or SIGTERM ends at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt:
    """A context in which SIGINT, SIGTERM and SIGUSR1 are noted in `signal` instead of striking at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # only the main thread of a process may set handlers; elsewhere (a notebook's worker) nothing is caught
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in STOPPING}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.signal = self.signal or number
            return
        if self.signal not in (None, signal.SIGUSR1):
            raise KeyboardInterrupt
        self.signal = number
