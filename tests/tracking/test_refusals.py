"""What a server refuses is told with what to type: logins, permissions, certificates, gateways, stores of files."""

from __future__ import annotations

import http.server
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlrun import tracking
from dlrun.errors import UserError
from dlrun.tracking import uploader
from dlrun.tracking.mlflow.client import ClientBackend
from dlrun.tracking.mlflow.diagnosis import explain
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hide_secrets
from tests.tracking.folders import MakeRun, log

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AUTHORITY, TOKEN = "MLFLOW_TRACKING_SERVER_CERT_PATH", "DLRUN_TRACKING_TOKEN_FILE"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (AUTHORITY, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", TOKEN, "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    # put back, whatever a test leaves in it
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@contextmanager
def server(
    status: int = 200, content: str = "", *, tls: Path | None = None, token: str | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An address that answers each call alike, or 401 without the bearer token; and the tokens that it was given."""
    given: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

        def answer(self) -> None:
            given.append(self.headers.get("Authorization", ""))
            refused = token is not None and given[-1] != f"Bearer {token}"
            body = b"You are not authenticated." if refused else content.encode()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(401 if refused else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as started:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.pem", tls / "server.key")
            started.socket = context.wrap_socket(started.socket, server_side=True)
        thread = threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{started.server_address[1]}", given
        started.shutdown()
        thread.join()


def said(uri: str) -> str | None:
    """What is said of a store when an experiment is asked for; None if trying again may help."""
    with pytest.raises(Exception) as found:
        ClientBackend(Address(uri)).experiment("x", Path("/nowhere"))
    return explain(found.value, Address(uri))


REFUSED = {
    "a page of MLflow's": (401, "You are not authenticated.", ["no login", "MLFLOW_TRACKING_TOKEN", "dlrun sync"]),
    "an expired login": (401, '{"error_code": "UNAUTHENTICATED", "message": "expired"}', ["no login", TOKEN]),
    "a gateway of another kind": (401, '{"detail": "token expired"}', ["no login", "MLFLOW_TRACKING_TOKEN"]),
    "another's experiment": (403, "Permission denied", ["no permission", "EDIT", "tracking.experiment=NAME"]),
    "a name not of the server": (403, "Invalid Host header - possible DNS rebinding", ["--allowed-hosts"]),
    "another program": (404, "<html>nothing here", ["no MLflow", "MLFLOW_TRACKING_URI"]),
    "a page to log in at": (200, "<html>log in", ["page", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"]),
    "a gateway with a limit": (413, "<html>too large", ["client_max_body_size", "tracking.log_checkpoints"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_told_with_what_to_type(case: str) -> None:
    status, content, words = REFUSED[case]
    with server(status, content) as (uri, _):
        told = said(uri) or ""
    assert all(word in told for word in words), told


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with server(status, '{"error_code": "INTERNAL_ERROR", "message": "boom"}') as (uri, _):
        assert said(uri) is None
    assert said(uri) is None, "nobody answers there any more"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, its own authority, and one of another name."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("needs openssl: type `apt-get install openssl`")
    folder = tmp_path_factory.mktemp("tls")
    for name, of in (("server", "IP:127.0.0.1"), ("other", "DNS:other.example.org")):
        made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        made += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={of}"]
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        subprocess.run([*made, *files], check=True, capture_output=True)
    (folder / "misnamed").mkdir()
    shutil.copy(folder / "other.pem", folder / "misnamed" / "server.pem")
    shutil.copy(folder / "other.key", folder / "misnamed" / "server.key")
    return folder


@pytest.mark.parametrize("variable", [AUTHORITY, "REQUESTS_CA_BUNDLE"])
def test_a_private_authority_is_named_by_either_variable(
    certificates: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}'
    with server(200, answer, tls=certificates) as (uri, _):
        told = said(uri) or ""
        assert AUTHORITY in told and "no known authority" in told
        monkeypatch.setenv(variable, str(certificates / "other.pem"))
        told = said(uri) or ""
        assert variable in told and "other.pem" in told and "other authorities" in told
        for useless in ("missing.pem", "server.key"):
            monkeypatch.setenv(variable, str(certificates / useless))
            told = said(uri) or ""
            assert f"{variable} is" in told and useless in told
        monkeypatch.setenv(variable, str(certificates / "server.pem"))
        assert ClientBackend(Address(uri)).experiment("x", Path("/nowhere")) == "7"


def test_certificates_of_other_names_and_other_protocols_are_told(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUTHORITY, str(certificates / "other.pem"))
    with server(tls=certificates / "misnamed") as (uri, _):
        assert "for other names" in (said(uri) or "")
    with server() as (uri, _):
        assert f"MLFLOW_TRACKING_URI={uri}" in (said(uri.replace("http:", "https:")) or "")


def test_missing_files_of_logins_are_told_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://127.0.0.1:9")
    for variable in (AUTHORITY, TOKEN):
        monkeypatch.setenv(variable, str(tmp_path / "missing"))
        with pytest.raises(UserError, match=variable):
            tracking.check(["mlflow"])
        monkeypatch.delenv(variable)
    tracking.check(["mlflow"])


def test_a_token_that_is_renewed_in_its_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("the-old-token\n")
    monkeypatch.setenv(TOKEN, str(file))
    answer = '{"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}'
    with server(200, answer, token="the-new-token") as (uri, given):
        backend = ClientBackend(Address(uri))
        with pytest.raises(Exception, match="401"):
            backend.experiment("x", tmp_path)
        file.write_text("")  # about to be written
        file.write_text("the-new-token\n")
        assert backend.experiment("x", tmp_path) == "7"
    assert given == ["Bearer the-old-token", "Bearer the-new-token"]
    assert "the-new-token" not in hide_secrets("sent the-new-token")
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "the-new-token"


def test_the_end_of_a_training_says_what_to_type(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    with server(401, "You are not authenticated.") as (uri, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert uploader.send(run, tracking.TRACKERS["mlflow"], patience=0) is False
    (line,) = capsys.readouterr().err.splitlines()
    (run.path / "uploader.log").write_text(f"{line}\n")
    told = " ".join(tracking.Uploader(run, {}, {"mlflow": ""}).describe_rest())
    assert all(word in told for word in (f"The store {uri} refuses", "MLFLOW_TRACKING_TOKEN", f"dlrun sync {run.id}"))


class NoCredentialsError(Exception):
    """As botocore's."""


FILES = {
    "no package": (ModuleNotFoundError("No module named 'boto3'", name="boto3"), ["pip install boto3"]),
    "no login": (NoCredentialsError("Unable to locate credentials"), ["AWS_ACCESS_KEY_ID"]),
    "a wrong one": (
        RuntimeError("An error occurred (InvalidAccessKeyId) when calling the PutObject operation: none"),
        ["InvalidAccessKeyId", "MLFLOW_S3_ENDPOINT_URL"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_stores_of_files_say_what_is_missing(case: str) -> None:
    error, words = FILES[case]
    told = explain(error, Address("http://127.0.0.1:9")) or ""
    assert all(word in told for word in [*words, "--artifacts-destination"]), told
