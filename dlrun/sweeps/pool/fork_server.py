"""A small process from which jobs are forked: it has imported their modules, and done nothing else.

It runs no code of the user, no tensor operation and no CUDA. After one parallel operation a forked child would
hang in its own first. Where there is no such server (macOS) a job is a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext

import psutil

# the last is slow to import, and some optimizers need it
PRELOAD = ("torch", "hydra._internal.hydra", "hydra.core.utils", "dlrun.commands.train", "torch._dynamo")

PART_PREFIXES = tuple(
    f"dlrun.{group}." for group in ("datasets", "models", "losses", "optimizers", "schedules", "studies")
)
"""The rooms of dlrun's parts. The launcher has imported those of its jobs, when it checked them."""


SERVER_DIED = 255
"""The exit code that multiprocessing gives all processes of a fork server that has died."""


class Orphan:
    """A process whose fork server has died: nobody tells of its end, so it is looked for."""

    def __init__(self, pid: int) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def lives(self) -> bool:
        """True while the process runs; another of its number does not count."""
        try:
            return (
                self._process is not None
                and self._process.is_running()
                # one that ended and that nobody waits for
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def modules() -> list[str]:
    """The modules of `PRELOAD` and `PART_PREFIXES` imported so far.

    A program without torch does not pay for it, and `torch._dynamo` (a second) is there if an optimizer needs it.
    """
    parts = sorted(name for name in list(sys.modules) if name.startswith(PART_PREFIXES))
    ours = ("dlrun.sweeps.pool.worker", "dlrun.sweeps.pool.fork_server_exit")
    return [*ours, *(name for name in PRELOAD if name in sys.modules), *parts]


def context() -> BaseContext:
    """This system's way to make processes."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(modules())
    return made


def start() -> None:
    """Start the server; it imports while the caller goes on."""
    if sys.platform == "linux":
        from multiprocessing import forkserver

        context()
        with clean_start():
            forkserver.ensure_running()


@contextmanager
def clean_start() -> Iterator[None]:
    """Start processes without signals and the main module.

    Signals that arrive meanwhile wait until the end.
    """
    resource_tracker.ensure_running()  # first, for it unblocks signals
    # a job gets what it needs of the main module by value: a script without a guard, run again in the job's process,
    # would start its sweep again
    stand_in, main = types.ModuleType("__main__"), sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
