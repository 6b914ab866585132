"""The server of `deploy/mlflow` with PostgreSQL, TLS and logins, a gateway before it, and what befalls them."""

from __future__ import annotations

import base64
import http.client
import http.server
import importlib.util
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dlrun.storage.files.waiting import wait_until
from tests.faults.server import free_port

PROGRAM = Path(__file__).parents[2] / "deploy" / "mlflow" / "serve.py"
PACKAGES = {"psycopg2": "psycopg2-binary", "flask_wtf": "mlflow[auth]", "boto3": "boto3", "moto": "moto[s3,server]"}
STORE = {"AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": "of-the-store", "AWS_DEFAULT_REGION": "us-east-1"}


def skip_without_programs() -> None:
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        pytest.skip("needs PostgreSQL: type `apt-get install postgresql`")
    if missing := [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]:
        pytest.skip(f"needs packages: type `pip install {' '.join(map(repr, missing))}`")


@dataclass
class RealServer:
    """A running `serve.py`; `environment` is the administrator's."""

    folder: Path
    port: int
    s3: str
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), str(self.folder), "--port", str(self.port), "--workers", "1"]
        command += ["--tls", "localhost", "127.0.0.1", "--artifacts", "s3://mlflow"]
        variables = os.environ | STORE | {"MLFLOW_S3_ENDPOINT_URL": self.s3}
        self.process = subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout
        given = dict(self.process.stdout.readline().strip().removeprefix("export ").split("=", 1) for _ in range(4))
        self.environment = given | {
            "MLFLOW_TRACKING_PASSWORD": (self.folder / "admin.password").read_text(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def drop_connections(self) -> None:
        """Have PostgreSQL end the connections of MLflow, in the middle of what they do."""
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'mlflow'"
        login = ["--username", "postgres"] if os.geteuid() == 0 else []
        command = ["psql", *login, "--host", str(self.folder / "socket"), "--dbname", "postgres", "--command", ended]
        subprocess.run(command, check=True, capture_output=True)

    def ask(self, method: str, path: str, **content: str) -> int:
        """Ask the server's own interface, as administrator; returns the status."""
        with closing(self.connection()) as connection:
            headers = {"Content-Type": "application/json", "Authorization": self.basic}
            connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(content), headers)
            return connection.getresponse().status

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"admin:{self.environment['MLFLOW_TRACKING_PASSWORD']}".encode()).decode()

    def connection(self) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(cafile=self.environment["MLFLOW_TRACKING_SERVER_CERT_PATH"])
        return http.client.HTTPSConnection("localhost", self.port, timeout=120, context=trusted)


@contextmanager
def real_server() -> Iterator[RealServer]:
    """Start a store that speaks S3, and the server."""
    port = free_port()
    # a short path: that of a socket is limited
    with tempfile.TemporaryDirectory(prefix="dlrun-") as place:
        Path(place).chmod(0o755)  # PostgreSQL is another user's, if this is root
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        store = subprocess.Popen(command, **quiet)
        server = RealServer(Path(place), free_port(), f"http://127.0.0.1:{port}")
        try:
            make_bucket(server.s3)
            server.start()
            yield server
        finally:
            server.stop()
            store.kill()
            store.wait()


def make_bucket(address: str) -> None:
    import boto3

    login = {"aws_access_key_id": "mlflow", "aws_secret_access_key": "of-the-store", "region_name": "us-east-1"}
    s3 = boto3.client("s3", endpoint_url=address, **login)

    def made() -> bool:
        try:
            return bool(s3.create_bucket(Bucket="mlflow"))
        except Exception:  # it has not started yet
            return False

    assert wait_until(made, 120, poll=0.2)


@dataclass
class Gateway:
    """Takes calls with a bearer token and passes them on over TLS; it may lose its answers."""

    server: RealServer
    token: str
    chance: random.Random
    loses: bool = False
    refused: int = 0
    lost: int = 0

    @contextmanager
    def listening(self) -> Iterator[str]:
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def pass_on(self) -> None:
                gateway._pass_on(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            listening.daemon_threads, listening.block_on_close = True, False
            threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
            yield f"http://127.0.0.1:{listening.server_address[1]}"
            listening.shutdown()

    def _pass_on(self, call: http.server.BaseHTTPRequestHandler) -> None:
        body = call.rfile.read(int(call.headers.get("Content-Length") or 0))
        if call.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            status, content = 401, b'{"detail": "token expired"}'
        else:
            left_out = ("host", "connection", "authorization")
            headers = {k: v for k, v in call.headers.items() if k.lower() not in left_out}
            try:
                with closing(self.server.connection()) as inner:
                    inner.request(call.command, call.path, body, headers | {"Authorization": self.server.basic})
                    answer = inner.getresponse()
                    status, content = answer.status, answer.read()
            except OSError:
                status, content = 502, b"<html>Bad Gateway</html>"
        if self.loses and self.chance.random() < 0.3:
            self.lost += 1
            call.close_connection = True
            return
        call.send_response(status)
        call.send_header("Content-Length", str(len(content)))
        call.end_headers()
        call.wfile.write(content)
