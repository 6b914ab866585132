"""An MLflow server that is away, dies, or loses its answers: the run is there once, with all of its points."""

from __future__ import annotations

import http.client
import http.server
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlrun.storage.files.waiting import wait_until
from tests.faults.programs import RUN, Programs, free_port

LONG = ("trainer.steps=3000", "trainer.log_every=5", "tracking.wait=20")
Loses = Callable[[str], bool]


@contextmanager
def mlflow_server(here: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{here}/server.db"]
    command += ["--artifacts-destination", f"{here}/artifacts"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=here, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        assert wait_until(lambda: _answers(port), 120)
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def proxy(target: int, loses: Loses) -> Iterator[int]:
    """A port that passes calls on to `target`, and drops the answers that `loses` names by their path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None: ...

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            with closing(http.client.HTTPConnection("127.0.0.1", target, timeout=60)) as inner:
                inner.request(self.command, self.path, body, headers)
                answer = inner.getresponse()
                content = answer.read()
            if loses(self.path):  # the server has done it, and nobody hears of it
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type") or "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def once(part: str) -> Loses:
    """The first answer to a call with `part` in its path."""
    calls = iter([True])
    return lambda path: part in path and next(calls, False)


def half() -> Loses:
    chance = random.Random(5)
    return lambda path: chance.random() < 0.5


@pytest.mark.parametrize("loses", [once("runs/create"), once("log-batch"), half()], ids=["create", "batch", "half"])
def test_lost_answers_make_no_second_run_and_no_gap(tmp_path: Path, loses: Loses) -> None:
    port = free_port()
    with mlflow_server(tmp_path, port), proxy(port, loses) as bad:
        programs = Programs(tmp_path, f"http://127.0.0.1:{bad}")
        programs.call(*RUN, *LONG)
        wait_until(lambda: all(programs.runs[0].summary().uploaded.values()), 60)
        straight = Programs(tmp_path, f"http://127.0.0.1:{port}")
        straight.call("sync")
        straight.check_store(straight.runs[0], tmp_path / "server.db")


def test_a_server_that_dies_meanwhile_is_sent_the_rest_later(tmp_path: Path) -> None:
    port = free_port()
    programs = Programs(tmp_path, f"http://127.0.0.1:{port}")
    with mlflow_server(tmp_path, port) as server:
        process = programs.start(*RUN, *LONG, "tracking.wait=1")
        assert wait_until(lambda: bool(programs.runs) and programs.runs[0].last.exists(), 60)
        kill_group(server)
        assert process.communicate(timeout=120) and process.returncode == 0
    with mlflow_server(tmp_path, port):
        programs.call("sync", "--patience", "60")
        programs.check_store(programs.runs[0], tmp_path / "server.db")
