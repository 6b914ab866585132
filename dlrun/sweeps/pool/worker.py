"""What happens in a job's process: its surroundings are set, the call is made, the result is sent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle

from dlrun.errors import RunError
from dlrun.sweeps.pool.slots import SlotLock
from dlrun.sweeps.pool.task import GRACE, attempt, one_line


@dataclass(frozen=True)
class WorkerSettings:
    """What a process is given before anything of the job runs."""

    environment: Mapping[str, str]
    device: str | None
    threads: int
    log: Path


def work(call: bytes, surroundings: WorkerSettings, answer: Connection, place: SlotLock) -> None:
    """Make the pickled call and send `("value" | "error" | "exit", content, told)`, pickled.

    The process holds `place`, its slot's, for as long as it lives.
    """
    _settle(surroundings)
    threading.Thread(target=_follow_the_launcher, daemon=True).start()
    kind, content, line = attempt(lambda: cloudpickle.loads(call)())
    message = kind, portable(content) if kind == "error" else content, line
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a full disk, or a stream that the job has closed
            stream.flush()
    answer.send_bytes(_packed(message))
    answer.close()


def portable(error: BaseException) -> BaseException:
    """Return the error if it can be sent to another process, else one that says the same."""
    try:
        copy = cloudpickle.loads(cloudpickle.dumps(error))
        return error if isinstance(copy, BaseException) else RunError(one_line(error))
    except Exception:
        return RunError(one_line(error))


def _packed(message: tuple[str, Any, str]) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(message)
    except Exception as error:
        unsent = RunError(f"The job's result cannot be sent to the launcher: {one_line(error)}")
        content = cloudpickle.dumps(("error", unsent, one_line(unsent)))
    return content


def _settle(surroundings: WorkerSettings) -> None:
    # a group of its own: Ctrl-C is the launcher's, which asks its jobs to save
    with suppress(OSError):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # a request to prune that comes when the training is over must not kill
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.environ.clear()
    os.environ.update(surroundings.environment)
    if surroundings.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = surroundings.device
    _redirect(surroundings.log)
    faulthandler.enable()
    _limit_threads(surroundings.threads)
    if "numpy.random" in sys.modules:
        # its global generator was seeded in the server, the same for all jobs; without a seed of ours it
        # would import hashlib to find one, which is most of what a job costs
        sys.modules["numpy.random"].seed([*os.urandom(16)])


def _redirect(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    # those of the server may be of another encoding, or block-buffered
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _follow_the_launcher() -> None:
    """Ask this process to save and end when the launcher is gone, however it went; insist later."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)
