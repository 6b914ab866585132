"""Wrong requests to the server behind `dlrun ui`: `python -m tests.fuzz.pages --minutes 10`.

Found is an answer with what lies outside of the folder of artifacts, one to another name than localhost, and a server
that answers no more.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.server import local
from dlrun.tracking.mlflow.store import prepare, quiet_mlflow
from tests.fuzz.mutations import change_bytes

SECRET = b"the-secret-of-this-machine"
CLIMBS = (
    "../../secret",
    "..%2f..%2fsecret",
    "%2e%2e/%2e%2e/secret",
    "..%252f..%252fsecret",
    "..\\..\\secret",
    "{secret}",
)
PLACES = (
    *("get-artifact?run_uuid=0&path=", "model-versions/get-artifact?name=a&version=1&path=", "static-files/", ""),
    *("ajax-api/2.0/mlflow-artifacts/artifacts/", "api/2.0/mlflow-artifacts/artifacts/", "graphql?query="),
    *(
        "ajax-api/2.0/mlflow/artifacts/list?run_id=0&path=",
        "ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=",
    ),
)


def requests(secret: Path, port: int) -> list[bytes]:
    head = f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n"
    climbs = [climb.format(secret=secret) for climb in CLIMBS]
    found = [f"GET /{place}{climb} HTTP/1.1\r\n{head}\r\n" for place in PLACES for climb in climbs]
    body = '{"name": "a", "order_by": ["x"], "filter": "tags.a = 1"}'
    posted = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    names = ("experiments/search", "runs/search", "registered-models/create")
    found += [f"POST /ajax-api/2.0/mlflow/{name} HTTP/1.1\r\n{posted}" for name in names]
    return [each.encode() for each in found]


def ask(port: int, request: bytes, patience: float = 0.2) -> bytes:
    """The answer to a request; empty if the server only ends the connection, or waits for more of the request."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
            connection.sendall(request)
            while (part := connection.recv(1 << 16)) and len(answer) < 1 << 20:
                answer += part
    except (ConnectionResetError, BrokenPipeError, TimeoutError):
        pass
    return answer


def _status(answer: bytes) -> str:
    return answer[9:12].decode(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.pages")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers, count, found = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        outputs, secret = Path(folder, "outputs"), Path(folder, "secret")
        secret.write_bytes(SECRET)
        os.environ["DLRUN_CACHE"] = f"{folder}/cache"
        address, artifacts = Address(f"sqlite:///{outputs}/mlflow.db"), outputs / "mlartifacts"
        outputs.mkdir()
        quiet_mlflow()
        prepare(address, artifacts)
        with local.serve(address, artifacts, port := local.free_port()) as server:
            given, health = (
                requests(secret, port),
                f"GET /health HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode(),
            )
            foreign = f"GET / HTTP/1.1\r\nHost: 10.evil.example:{port}\r\nConnection: close\r\n\r\n".encode()
            begun = time.monotonic()
            while time.monotonic() < begun + options.minutes * 60 and found < 20:
                request = (
                    given[count]
                    if count < len(given)
                    else change_bytes(numbers.randrange, numbers.choice(given), given)
                )
                count += 1
                wrong = "an answer with the secret" if SECRET in ask(port, request) else ""
                if count % 50 == 0 and _status(ask(port, health, 20)) != "200":
                    wrong = "no answer any more"
                if count % 50 == 1 and _status(ask(port, foreign, 20)) != "403":
                    wrong = "an answer to another name"
                if server.poll() is not None:
                    wrong = "the server has ended"
                if wrong:
                    found += 1
                    print(f"{wrong}: {request[:500]!r}", flush=True)
            minutes = (time.monotonic() - begun) / 60
    print(f"pages {minutes:5.1f} minutes {count:,} requests, {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
