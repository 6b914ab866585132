"""Several processes of one run, forked from a server, with the variables that torchrun sets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import Called

Together = Callable[..., list[Called]]


@pytest.fixture
def together(here: Path) -> Together:
    """`together(n, *argv)`: dlrun in n processes of one run; what each came to."""

    def call(number: int, *argv: str, timeout: float = 100) -> list[Called]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
        environment = os.environ | ({"MASTER_PORT": port, **world} if number > 1 else {})
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "dlrun", *argv]
        started = [
            processes.Process(
                command,
                server="ranks",
                cwd=here,
                env=environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if number > 1 else {}),
                text=True,
                **streams,
            )
            for rank in range(number)
        ]
        found = []
        for each in started:
            out, err = each.communicate(timeout=timeout)
            found.append(Called(each.returncode or 0, out, err))
        return found

    return call
