"""Programs of Python as processes, forked from a server that has imported what they need: see fork_server.

`Process` and `run` are `subprocess.Popen` and `subprocess.run` as the tests use them. For what a fresh
interpreter costs or does at its start, and for programs that are not Python's, there is `subprocess`.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from tests.fork_server import NUMBER

PLACE = "DLRUN_TEST_SERVERS"
"""The variable that holds the folder of the servers' sockets: one for all processes of a session of pytest."""

SERVERS = {
    "dlrun": ("dlrun.commands.train", "dlrun.commands.resume", "dlrun.sweeps.pool.worker", "sklearn.datasets"),
    # the last two are what DDP imports when it is first made
    "ranks": ("dlrun.commands.train", "dlrun.commands.resume", "sklearn.datasets", "torch._dynamo", "torch._inductor"),
    "mlflow": ("dlrun.tracking.sweep_upload", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"),
}
"""What each server imports, when it is first asked: never a module that is run by its name."""

STREAMS = ("stdin", "stdout", "stderr")


def start_servers(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start the servers; each ends when its standard input does."""
    os.environ[PLACE] = str(folder)
    # MLflow reads them when it is imported, and the uploader sets them so
    settings = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    return [start_server(folder / name, modules, env=settings) for name, modules in SERVERS.items()]


def start_server(
    place: Path, modules: Sequence[str], *, python: str | os.PathLike[str] = sys.executable, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the server whose socket is `place`, of an interpreter and an environment."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        number = listener.fileno()
        return subprocess.Popen(
            [os.fspath(python), str(Path(__file__).with_name("fork_server.py")), str(number), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=env,
            pass_fds=[number],
            process_group=0,  # Ctrl-C is for the tests
        )


def end_servers(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the servers and what they have forked."""
    for server in servers:
        server.communicate()


class Process:
    """A program of Python that runs: `subprocess.Popen`, as far as the tests use it.

    `command` begins with the interpreter of the `server`: one of `SERVERS`, or the socket of another.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        server: str | os.PathLike[str] = "dlrun",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
        start_new_session: bool = False,
        process_group: int | None = None,
        **streams: int | IO[Any] | None,
    ) -> None:
        self.args = command
        self.returncode: int | None = None
        asked = {
            "program": [os.fspath(word) for word in command[1:]],
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": {name: value for name, value in (env or os.environ).items() if name != PLACE},
            "session": start_new_session,
            "group": os.getpgid(0) if process_group is None else process_group,
        }
        with ExitStack() as given:
            ends = [_end(number, streams.get(name), given) for number, name in enumerate(STREAMS)]
            self._server = _ask(server, asked, [theirs for _, theirs in ends])
        self.pid = self._number()
        self.stdout, self.stderr = (
            None if ours is None else os.fdopen(ours, "r" if text else "rb") for ours, _ in ends[1:]
        )

    def __del__(self) -> None:
        self._server.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raise `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._number()
            self._server.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Return all that comes from both streams, and have the exit code; raise `subprocess.TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        found: dict[int, Any] = {}
        streams = {n: stream for n, stream in enumerate((self.stdout, self.stderr)) if stream and not stream.closed}
        readers = [
            threading.Thread(target=lambda n=n, stream=stream: found.update({n: stream.read()}), daemon=True)
            for n, stream in streams.items()
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        for stream in streams.values():
            stream.close()
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return found.get(0), found.get(1)

    def _number(self) -> int:
        """Return the next number that the server sends."""
        answer = self._server.recv(NUMBER.size, socket.MSG_WAITALL)
        assert answer, "the server of the tests' processes has ended: what it said is among pytest's own output"
        return int(NUMBER.unpack(answer)[0])


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    check: bool = False,
    capture_output: bool = False,
    timeout: float | None = None,
    **more: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as `subprocess.run` does."""
    if capture_output:
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Process(command, **more)
    try:
        out, err = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    done = subprocess.CompletedProcess(command, process.wait(), out, err)
    if check:
        done.check_returncode()
    return done


UPLOADING = SimpleNamespace(Popen=partial(Process, server="mlflow"), DEVNULL=subprocess.DEVNULL)
"""What an uploader is started with in place of `subprocess`, where its start is not what is tested."""


def _end(number: int, stream: int | IO[Any] | None, given: ExitStack) -> tuple[int | None, int]:
    """Return our end and the process's end of a stream; the latter is closed with `given` if it was opened here."""
    if stream is None:
        return None, number
    if stream == subprocess.DEVNULL:
        return None, given.enter_context(Path(os.devnull).open("r+b", buffering=0)).fileno()
    if stream == subprocess.PIPE:
        ours, theirs = os.pipe()
        given.callback(os.close, theirs)
        return ours, theirs
    return None, stream if isinstance(stream, int) else stream.fileno()


def _ask(server: str | os.PathLike[str], asked: dict[str, Any], streams: list[int]) -> socket.socket:
    """Have a server fork; return the connection through which it tells of the process."""
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(Path(os.environ[PLACE], server)))
    request = pickle.dumps(asked)
    socket.send_fds(caller, [NUMBER.pack(len(request))], streams)
    caller.sendall(request)
    return caller
