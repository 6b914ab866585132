"""dlrun as a shell calls it: whole processes, in an outputs folder of the benchmark's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dlrun.storage.rundir import RunDir

SHELL = ("DLRUN_OUTPUTS", "DLRUN_TRACEBACK", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
"""Settings of the caller's that would change what is measured: without bytecode each start compiles dlrun anew."""


@contextmanager
def workplace() -> Iterator[Path]:
    """Give an empty current directory, for the commands that are then called."""
    with TemporaryDirectory(prefix="dlrun-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def dlrun(*arguments: str) -> list[str]:
    """Return the command line of dlrun: the installed script, as a person calls it, if there is one."""
    script = Path(sys.executable).with_name("dlrun")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "dlrun"]), *arguments]


def start(command: Sequence[str], here: Path) -> subprocess.Popen[str]:
    """Start a command in the folder `here`; its output can be read line by line."""
    environment = {name: value for name, value in os.environ.items() if name not in SHELL}
    return subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def call(command: Sequence[str], here: Path) -> str:
    """Call a command and return what it printed.

    Raises `RuntimeError` with the output if it fails.
    """
    process = start(command, here)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{output}")
    return output


def seconds(command: Sequence[str], here: Path) -> float:
    """Return how long a command takes, from its start to its end."""
    tic = time.perf_counter()
    call(command, here)
    return time.perf_counter() - tic


def train(here: Path, *overrides: str) -> RunDir:
    """Train to the end, and return the run."""
    return folder_in(call(dlrun("train", *overrides), here), here)


def folder_in(output: str, here: Path) -> RunDir:
    """Return the run whose folder the head of an output names."""
    for line in output.splitlines():
        if line.startswith("  folder "):
            return RunDir(here / line.split(maxsplit=1)[1])
    raise RuntimeError(f"No run began:\n{output}")
