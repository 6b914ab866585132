"""dlrun as whole processes, in an outputs folder of the benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from dlrun.storage.rundir import RunDir

# settings of the caller that would change the measurement: without bytecode, each start compiles dlrun anew
SHELL = ("DLRUN_OUTPUTS", "DLRUN_TRACEBACK", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder to run commands in."""
    with TemporaryDirectory(prefix="dlrun-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def dlrun(*arguments: str) -> list[str]:
    """The command line of dlrun: the installed script if there is one."""
    script = Path(sys.executable).with_name("dlrun")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "dlrun"]), *arguments]


def start(command: Sequence[str], here: Path, output: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a command in `here`, its output readable line by line, or in a file."""
    environment = {name: value for name, value in os.environ.items() if name not in SHELL}
    return subprocess.Popen(command, cwd=here, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)


def call(command: Sequence[str], here: Path) -> str:
    """Run a command and return its output; raises `RuntimeError` with the output if it fails."""
    process = start(command, here)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{output}")
    return output


def seconds(command: Sequence[str], here: Path) -> float:
    """The wall seconds of a command."""
    tic = time.perf_counter()
    call(command, here)
    return time.perf_counter() - tic


def train(here: Path, *overrides: str) -> RunDir:
    """Train to the end."""
    return folder_in(call(dlrun("train", *overrides), here), here)


def folder_in(output: str, here: Path) -> RunDir:
    """The run whose folder is printed in an output."""
    for line in output.splitlines():
        if line.startswith("  folder "):
            return RunDir(here / line.split(maxsplit=1)[1])
    raise RuntimeError(f"No run began:\n{output}")
