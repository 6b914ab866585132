"""Imported by the fork server: there it ends the process at once when its launcher has ended.

Python's own end of a process that has imported torch takes three seconds.
"""

from __future__ import annotations

import atexit
import os
import sys


def _end(server: int) -> None:
    # a job, forked from the server, has its own end
    if os.getpid() == server:
        os._exit(0)


def is_server() -> bool:
    """True in a process that multiprocessing started as a fork server."""
    return any("multiprocessing.forkserver" in argument for argument in sys.orig_argv)


# any other process that imports this has an exit code, and things to do at its end
if is_server():
    atexit.register(_end, os.getpid())
