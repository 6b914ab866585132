"""Runs in this process: each writes to its own log, and finds the process as the one before did.

Only for jobs that are made of dlrun's and torch's parts. These change of a process what `isolated` puts back.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlrun.terminal import output

TORCH_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
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
    environment = dict(os.environ)
    try:
        with restored_torch_settings():
            yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def restored_torch_settings() -> Iterator[None]:
    """Restore torch's settings at the end."""
    values = [get() for get, _ in TORCH_SETTINGS]
    try:
        yield
    finally:
        for (get, put), value in zip(TORCH_SETTINGS, values, strict=True):
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
