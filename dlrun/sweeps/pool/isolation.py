"""What a job may change of the process that it runs in, put back when it has ended.

The jobs of a sweep that share a process must not find what the one before has left behind: a default type, a
working directory, a log handler. Modules that were imported stay, and what was changed in them.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch

from dlrun.storage import identity
from dlrun.terminal import output

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def apart(log: Path, *, threads: int) -> Iterator[None]:
    """Have what is printed go to the file `log`, and what is changed of this process changed back at the end."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for context in (settings_kept, _process, _logging, output.isolated, identity.apart):
            stack.enter_context(context())
        stack.enter_context(printed_to(log))
        torch.set_num_threads(threads)
        _draw_anew()
        yield


@contextmanager
def printed_to(log: Path) -> Iterator[None]:
    """Redirect both streams, for Python and for what writes to their descriptors."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with log.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        kept = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in kept:
                os.dup2(file.fileno(), number)
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            with suppress(OSError, ValueError):  # a full disk, or a stream that the job has closed
                file.flush()
            for number, before in kept.items():
                os.dup2(before, number)
                os.close(before)


@contextmanager
def _process() -> Iterator[None]:
    folder, environment, path = Path.cwd(), dict(os.environ), sys.path[:]
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        os.chdir(folder)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        sys.path[:] = path
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _logging() -> Iterator[None]:
    """Let a job set up logging as in a process of its own, and close what it has opened."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable
    root.handlers[:] = []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Give torch's settings back as they were."""
    before = {name: get() for name, (get, _) in SETTINGS.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            get, put = SETTINGS[name]
            if get() != value:
                put(value)


def _draw_anew() -> None:
    """Give the global generators other numbers than the job before had: what is unseeded differs, as it should."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed([*os.urandom(16)])
    torch.default_generator.manual_seed(torch.default_generator.initial_seed())


def _attribute(holder: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return lambda: getattr(holder, name), lambda value: setattr(holder, name, value)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "default type": (torch.get_default_dtype, torch.set_default_dtype),
    "gradients": (torch.is_grad_enabled, lambda value: torch._C._set_grad_enabled(value)),
    "deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "anomalies": (torch.is_anomaly_enabled, lambda value: torch._C.set_anomaly_enabled(value)),
    **{
        f"cudnn.{name}": _attribute(torch.backends.cudnn, name)
        for name in ("benchmark", "allow_tf32", "deterministic", "enabled")
    },
}
"""How each setting of torch is asked for and set."""
