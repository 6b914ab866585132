"""MLflow's server on this machine, for as long as somebody looks at its pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from dlrun.errors import RunError, UserError
from dlrun.storage.files.waiting import wait_until
from dlrun.tracking import program
from dlrun.tracking.mlflow.names.address import Address

PROGRAM = "dlrun.tracking.mlflow.server.attended"
# browsers refuse to open these
UNSAFE_PORTS = frozenset({5060, 5061, 6000, *range(6665, 6670)})
HOSTS = "localhost,localhost:*,127.0.0.1,127.0.0.1:*"
"""By which browsers may call the server, a tunnel's port too.

MLflow's own list has 10.* for addresses of private networks, which 10.evil.example fits too: a page of that name could
have its name lead here, and read all that the server shows.
"""
PATIENCE = 120.0
"""Seconds in which the server must have started."""


@contextmanager
def serve(address: Address, artifacts: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server on 127.0.0.1 for the block.

    It answers when the block begins. Raises `RunError` if it does not start.
    """
    path = artifacts.parent / "server.log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--artifacts-destination", artifacts.as_uri()]
    # the log of an earlier server is no answer to why this one did not start
    path.unlink(missing_ok=True)
    server = subprocess.Popen(
        program.command(PROGRAM, str(path), *options),
        env=program.environment(
            # here, for the command line is everybody's to read
            MLFLOW_BACKEND_STORE_URI=address.reveal(),
            # without MLflow's own job queue: eight processes and half a gigabyte less
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            MLFLOW_SERVER_ALLOWED_HOSTS=os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS") or HOSTS,
        ),
        # it is closed however this process ends, and the server ends then
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        answered = wait_until(lambda: server.poll() is not None or _answers(port), PATIENCE, poll=0.2)
        # a server that has ended, with the code 0 too, answers nothing; another program may answer in its place
        if server.poll() is not None:
            raise RunError(f"MLflow's server ended with code {server.poll()}, not started on port {port}: see {path}.")
        if not answered:
            raise RunError(f"MLflow's server did not start on port {port} in {PATIENCE:.0f} seconds: see {path}.")
        yield server
    finally:
        _end(server)
        if server.stdin:
            server.stdin.close()


def free_port() -> int:
    """The first free port from 5000 on."""
    return next(port for port in range(5000, 6000) if port not in UNSAFE_PORTS and _is_free(port))


def check_port(port: int) -> None:
    """Raise `UserError` for a port refused by browsers, or taken."""
    if not 1 <= port <= 65535 or port in UNSAFE_PORTS:
        raise UserError(f"--port is {port}: browsers refuse it. Type `dlrun ui` for a free one, or --port 5000.")
    if not _is_free(port):
        raise UserError(f"--port is {port}: another program listens there. Type `dlrun ui` for a free one.")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    # the server is on this machine: a proxy of the environment would not find it
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    # its worker processes are in its group
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience)
            if not _group_alive(server.pid):
                return


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
