"""Jobs in this process, one after another: a process of their own would take longer to start than they take.

Only for jobs that are made of dlrun's and torch's parts. These change of a process what `isolated` puts back.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.sweeps.pool.slots import Slot, gpus, lock
from dlrun.sweeps.pool.task import Task, TaskResult, attempt, task_result
from dlrun.terminal import output

TICK = 0.25
"""Seconds between two calls of `on_tick`, at the least."""

SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    *(
        (partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name))
        for name in ("benchmark", "allow_tf32")
    ),
]
"""Each setting of torch that a run may change: its getter and its setter."""


def run(
    tasks: Iterable[Task],
    slot: Slot,
    *,
    on_result: Callable[[TaskResult], bool],
    on_tick: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the tasks in order; a failure harms no other.

    `on_result` takes each result, and returns False to start no further task. Raises `KeyboardInterrupt` or
    `SystemExit(143)` after an interrupt, which the running task has obeyed.
    """
    ticked = 0.0
    with Interrupt() as interrupt:
        for task in tasks:
            if interrupt.signal is not None:
                break
            if time.monotonic() > ticked + TICK:
                on_tick(1)
                ticked = time.monotonic()
            if not on_result(_run(task, interrupt, threads=slot.threads)):
                break
    if interrupt.signal is not None:
        raise exception_for(interrupt.signal)


def _run(task: Task, interrupt: Interrupt, *, threads: int) -> TaskResult:
    began = time.monotonic()
    with isolated(task.log, threads=threads):
        kind, content, message = attempt(task.call)
    if kind == "error" and interrupt.signal is not None:
        # the code with which an interrupted job of the pool exits
        kind, content = "exit", 128 + (signal.SIGTERM if interrupt.signal == signal.SIGTERM else signal.SIGINT)
    return task_result(task, kind, content, message, seconds=time.monotonic() - began)


@contextmanager
def hold(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Hold the first free slot, waiting if all are taken.

    On a GPU `cuda` means the slot's GPU meanwhile.
    """
    waits = False
    while (free := next(((slot, held) for slot in slots if (held := lock(slot))), None)) is None:
        if not waits:
            output.say("waiting for a GPU: other dlrun jobs of this machine have them all")
        waits = True
        time.sleep(TICK)
    slot, held = free
    with ExitStack() as stack:
        stack.callback(held.release)
        if slot.device is not None:
            stack.enter_context(torch.cuda.device(gpus().index(slot.device)))
        yield slot


@contextmanager
def isolated(log: Path, *, threads: int) -> Iterator[None]:
    """Log all output; restore settings, environment and logging."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for context in (restored_settings, _restored_logging, output.isolated):
            stack.enter_context(context())
        stack.enter_context(redirected(log))
        torch.set_num_threads(threads)
        yield


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore torch's settings and the environment at the end."""
    environment, values = dict(os.environ), [get() for get, _ in SETTINGS]
    try:
        yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        for (get, put), value in zip(SETTINGS, values, strict=True):
            if get() != value:  # to set the same deterministic mode again would import torch._inductor: a second
                put(value)


@contextmanager
def _restored_logging() -> Iterator[None]:
    """Start without log handlers; restore them at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # else `logging.basicConfig` of the job would do nothing
    root.handlers[:] = []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def redirected(log: Path) -> Iterator[None]:
    """Append the standard streams to `log`, C's too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with log.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        # Python's streams write to the file, and C to these descriptors
        copies = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in copies:
                os.dup2(file.fileno(), number)
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            with suppress(OSError, ValueError):  # a full disk, or a stream that the job has closed
                file.flush()
            for number, copy in copies.items():
                os.dup2(copy, number)
                os.close(copy)
