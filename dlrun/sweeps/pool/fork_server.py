"""The small process from which jobs are forked: it has imported what they need, and done nothing else.

No user code, no tensor operation and no CUDA run in it: after one parallel operation a forked child
would hang in its own first. Where there is no such server (macOS) a job is a new interpreter.
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

PRELOAD = ("torch", "hydra._internal.hydra", "hydra.core.utils", "dlrun.commands.train", "torch._dynamo")

PARTS = tuple(f"dlrun.{group}." for group in ("datasets", "models", "losses", "optimizers", "schedules", "studies"))
"""How the names of dlrun's own parts begin, of which the launcher has imported those that its jobs use."""


def modules() -> list[str]:
    """Return what the server imports: of what jobs are known to need, what this program has needed itself.

    So a program without torch does not pay for it, and `torch._dynamo` (a second) is there if an optimizer
    that needs it was checked.
    """
    parts = sorted(name for name in list(sys.modules) if name.startswith(PARTS))
    return ["dlrun.sweeps.pool.worker", *(name for name in PRELOAD if name in sys.modules), *parts]


def context() -> BaseContext:
    """Return how processes are made here."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(modules())
    return made


def start() -> None:
    """Have the server begin to import while its caller has other things to do."""
    if sys.platform == "linux":
        from multiprocessing import forkserver

        context()
        with apart():
            forkserver.ensure_running()


@contextmanager
def apart() -> Iterator[None]:
    """Keep signals of the terminal, and the program's main module, from processes that are made meanwhile.

    Signals that arrive wait until the end of the context. What a job needs of the main module comes
    with it, by value: were the module run again, a script without a guard would start its sweep again.
    """
    resource_tracker.ensure_running()  # first, for it unblocks signals
    stand_in, main = types.ModuleType("__main__"), sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
