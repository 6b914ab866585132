"""Imported by the fork server alone: it ends at once when its launcher has ended.

Python's own end of a process that has imported torch takes three seconds.
"""

from __future__ import annotations

import atexit
import os


def _end(server: int) -> None:
    # a job, forked from the server, has its own end
    if os.getpid() == server:
        os._exit(0)


atexit.register(_end, os.getpid())
