"""Waiting, for a condition or a time."""

from __future__ import annotations

import select
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], seconds: float, poll: float = 0.05) -> bool:
    """Wait for `condition`, at most `seconds`; False if in vain."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        pause(poll)
    return True


def pause(seconds: float) -> None:
    """Wait, also where the clock is simulated.

    `time.sleep` waits for a time of the clock, and fails there.
    """
    select.select((), (), (), seconds)
