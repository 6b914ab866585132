"""The job's process: set up, make the call, send the result."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle

from dlrun.errors import RunError
from dlrun.storage.files.waiting import pause
from dlrun.sweeps.pool.slots import SlotLock
from dlrun.sweeps.pool.task import GRACE, attempt, one_line


@dataclass(frozen=True)
class WorkerSettings:
    """The process as the job finds it."""

    environment: Mapping[str, str]
    device: str | None
    threads: int
    log: Path


def work(call: bytes, settings: WorkerSettings, answer: Connection, place: SlotLock) -> None:
    """Make the pickled call, and send its result.

    That is `("value" | "error" | "exit", content, message)`, pickled. The process holds `place`, its slot's, for as
    long as it lives.
    """
    _set_up(settings)
    threading.Thread(target=_follow_launcher, daemon=True).start()
    kind, content, line = attempt(lambda: cloudpickle.loads(call)())
    message = kind, portable(content) if kind == "error" else content, line
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a full disk, or a stream that the job has closed
            stream.flush()
    try:
        answer.send_bytes(_pack(message))
    except ConnectionError:
        # a launcher that was killed wants no answer
        if not wait([_launcher()], 1.0):
            raise
    answer.close()


def portable(error: BaseException) -> BaseException:
    """The error, or a `RunError` if it cannot be pickled."""
    try:
        copy = cloudpickle.loads(cloudpickle.dumps(error))
        return error if isinstance(copy, BaseException) else RunError(one_line(error))
    except Exception:
        return RunError(one_line(error))


def _pack(message: tuple[str, Any, str]) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(message)
    except Exception as error:
        unsent = RunError(f"The job's result cannot be sent to the launcher: {one_line(error)}")
        content = cloudpickle.dumps(("error", unsent, one_line(unsent)))
    return content


def _set_up(settings: WorkerSettings) -> None:
    # a group of its own: Ctrl-C is the launcher's, which asks its jobs to save
    with suppress(OSError):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # a request to prune may come when the training is over, and must not kill
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    # what the job starts is its own child, as in a single run, not the fork server's
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(settings.environment)
    if settings.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.device
    redirect(settings.log)
    # a segmentation fault leaves its traceback in the log
    faulthandler.enable()
    _limit_threads(settings.threads)
    if "numpy.random" in sys.modules:
        # the server seeded its global generator, the same for all jobs. With a seed of ours numpy needs no
        # hashlib, whose import is most of the time that a short job takes
        sys.modules["numpy.random"].seed([*os.urandom(16)])


def redirect(log: Path) -> None:
    """Append the process's output to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    # the server's may have another encoding, or buffer blocks
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # imported by the fork server, torch has read the variables already
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _launcher() -> int:
    """A descriptor that is ready once the launcher has died."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    return launcher.sentinel


def _follow_launcher() -> None:
    """Outlive the launcher by `GRACE` seconds at most."""
    wait([_launcher()])
    # the run saves and ends at this signal
    os.kill(os.getpid(), signal.SIGTERM)
    pause(GRACE)
    os.killpg(0, signal.SIGKILL)
