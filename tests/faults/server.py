"""A real MLflow server, and a proxy before it that is away, hangs, is slow, fails, or loses answers."""

from __future__ import annotations

import http.client
import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dlrun.storage.files.waiting import wait_until
from tests.faults.stored import Stored

WAYS = ("down", "hanging", "slow", "answering 500", "losing answers")
Server = http.server.ThreadingHTTPServer


class MlflowServer:
    """A server at `port` whose store is a file."""

    def __init__(self, here: Path) -> None:
        self.here, self.port = here, free_port()

    @property
    def stored(self) -> Stored:
        return Stored(lambda run: self.here / "server.db")


class Proxy:
    """Passes calls on to a server until it is `broken`."""

    def __init__(self, server: MlflowServer, chance: random.Random) -> None:
        self._target, self._chance = server.port, chance
        self._way, self._over = "", threading.Event()
        self.port = free_port()
        self._listening: Server | None = None
        self._listen()

    @contextmanager
    def broken(self, way: str) -> Iterator[None]:
        """Be one of `WAYS` for a while."""
        self._over.clear()
        self._way = way
        if way == "down":
            self.close()
        yield
        self._way = ""
        self._over.set()
        if way == "down":
            self._listen()

    def close(self) -> None:
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
        self._listening = None

    def _listen(self) -> None:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def pass_on(self) -> None:
                with suppress(OSError):  # the caller did not wait
                    proxy._pass_on(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

        class Listening(Server):
            daemon_threads = allow_reuse_address = True
            block_on_close = False

        self._listening = Listening(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._listening.serve_forever, args=(0.05,), daemon=True).start()

    def _pass_on(self, call: http.server.BaseHTTPRequestHandler) -> None:
        body = call.rfile.read(int(call.headers.get("Content-Length") or 0))
        way, loses = self._way, self._chance.random() < 0.7
        if way == "hanging":
            self._over.wait()
        if way in ("down", "hanging"):  # of connections of before
            call.close_connection = True
            return
        if way == "slow":
            time.sleep(self._chance.uniform(0.5, 2))
        if way == "answering 500":
            _answer(call, 500, b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
            return
        headers = {k: v for k, v in call.headers.items() if k.lower() not in ("host", "connection")}
        with closing(http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)) as inner:
            inner.request(call.command, call.path, body, headers)
            answer = inner.getresponse()
            content = answer.read()
        if way == "losing answers" and loses:  # the server has done it, and nobody hears of it
            call.close_connection = True
            return
        _answer(call, answer.status, content, answer.getheader("Content-Type"))


def _answer(
    call: http.server.BaseHTTPRequestHandler, status: int, content: bytes, kind: str | None = "application/json"
) -> None:
    call.send_response(status)
    call.send_header("Content-Type", kind or "application/json")
    call.send_header("Content-Length", str(len(content)))
    call.end_headers()
    call.wfile.write(content)


@contextmanager
def mlflow_server(here: Path) -> Iterator[MlflowServer]:
    """Start a server with its store in `here`."""
    made = MlflowServer(here)
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(made.port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{here}/server.db"]
    command += ["--artifacts-destination", f"{here}/artifacts"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=here, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)
    try:
        assert wait_until(lambda: _answers(made.port), 180, poll=0.2)
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
