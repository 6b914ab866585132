"""No password of a store's address reaches a file, a screen or a command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlrun import tracking
from dlrun.commands import sync
from dlrun.errors import UserError
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hide_secrets, message
from dlrun.tracking.mlflow.server import local
from dlrun.tracking.mlflow.uri import check_address, check_driver
from tests.tracking.folders import MakeRun, log

SECRET = "Hunter2SECRETpw"
ADDRESSES = {
    f"http://ada:{SECRET}@127.0.0.1:9": "http://127.0.0.1:9",
    f"https://ada:p/{SECRET}@h/x?y=z": "https://h/x?y=***",
    f"https://{SECRET}@h/x": "https://h/x",
    f"http://127.0.0.1:9/?token={SECRET}": "http://127.0.0.1:9/?token=***",
    f"postgresql://ada:{SECRET}?@h:1/db": "postgresql://h:1/db",
    f"postgresql://h/db?user=ada&password={SECRET}": "postgresql://h/db?user=ada&password=***",
    f"mssql+pyodbc:///?odbc_connect=PWD%3D{SECRET}": "mssql+pyodbc:///?odbc_connect=***",
    f"ftp://ada:{SECRET}@127.0.0.1/x": "ftp://127.0.0.1/x",
    f"//ada:{SECRET}@127.0.0.1/x": "//127.0.0.1/x",
    f"http://ada:{SECRET}@127.0.0.1:99999x/": "http://127.0.0.1:99999x/",
    f"ada:{SECRET}@host": "host",
    "sqlite:////home/a@b/mlflow.db?timeout=3": "sqlite:////home/a@b/mlflow.db?timeout=3",
    "http://host:5000/a@b": "http://host:5000/a@b",
}


@pytest.mark.parametrize("uri", ADDRESSES)
def test_an_address_prints_without_its_secret(uri: str) -> None:
    address = Address(uri)
    assert str(address) == ADDRESSES[uri]
    assert SECRET not in f"{address!r} {address} {[address]}"
    assert address.reveal() == uri


@pytest.mark.parametrize("uri", [uri for uri in ADDRESSES if SECRET in uri])
def test_a_text_about_it_loses_the_secret(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = next(secret for secret in Address(uri).secrets if secret)
    said = f"cannot reach {uri} ({secret!r}), as https://eve:{SECRET}x@h"
    assert SECRET not in hide_secrets(f"https://ada:{SECRET}@h is away; password='{SECRET}'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert SECRET not in hide_secrets(said)
    assert SECRET[:4] not in message(ValueError("x" * 495 + secret))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert SECRET not in hide_secrets(f"Bearer {SECRET}")


@pytest.mark.parametrize("uri", [f"ftp://ada:{SECRET}@h/x", f"//ada:{SECRET}@h/x", f"ftp://h/x?password={SECRET}"])
def test_a_refused_address_is_told_without_it(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as refused:
        check_address()
    assert SECRET not in str(refused.value)


def test_a_missing_driver_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql+nosuch://ada:{SECRET}@h/db")
    with pytest.raises(UserError, match="mysql") as refused:
        check_driver()
    assert SECRET not in str(refused.value)
    for driver in ("psycopg", "psycopg2"):  # that of SQLAlchemy 2.1, and of those before
        monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ada:{SECRET}@h/db")
    with pytest.raises(UserError, match=r"pip install '?psycopg") as refused:
        tracking.check(["mlflow"])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("place", [f"ada:{SECRET}@127.0.0.1:9", f"127.0.0.1:9/?token={SECRET}"])
def test_no_file_and_no_screen_has_it(
    place: str, make_run: MakeRun, outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    beside = tracking.start(run)
    command = Path(f"/proc/{beside.processes['mlflow'].pid}/cmdline")
    shown = command.read_bytes() if command.exists() else b""
    # it says why nothing is sent
    assert local.wait_until(lambda: bool((run.path / "uploader.log").read_bytes()), 120)
    assert not beside.wait(0)
    os.kill(beside.processes["mlflow"].pid, 9)
    os.waitpid(beside.processes["mlflow"].pid, 0)
    assert sync.main([]) == 1
    with pytest.raises(UserError, match="cannot be deleted") as refused:
        tracking.delete(run)
    told = "".join(capsys.readouterr()) + str(refused.value)
    assert SECRET not in told
    assert SECRET.encode() not in shown
    assert not [file for file in outputs.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


def test_a_stamp_has_no_secret(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://h/db?password={SECRET}")
    location = tracking.TRACKERS["mlflow"].location(make_run())
    assert location == "postgresql://h/db?password=***"


def test_the_server_behind_the_pages_gets_the_address_by_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    address = Address(f"postgresql://ada:{SECRET}@h/db")

    def popen(command: list[str], env: dict[str, str], **_: object) -> None:
        started.append((command, env))
        raise OSError

    monkeypatch.setattr(local, "subprocess", type("Fake", (), {"Popen": popen, "PIPE": -1, "DEVNULL": -3}))
    with pytest.raises(OSError), local.serve(address, tmp_path / "artifacts", 5000):
        pass
    ((command, environment),) = started
    assert SECRET not in " ".join(map(str, command))
    assert environment["MLFLOW_BACKEND_STORE_URI"] == address.reveal()


PROGRAM = """
import subprocess, sys
from pathlib import Path
from dlrun.tracking.mlflow.server import attended
# a server that has a worker, and prints the address
worker = "import time; time.sleep(600)"
server = f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]);" \
    "print(os.environ['MLFLOW_TRACKING_URI'], flush=True); time.sleep(600)"
popen = subprocess.Popen
attended.subprocess.Popen = lambda command, **more: popen([sys.executable, "-c", server], **more)
sys.exit(attended.main([sys.argv[1]]))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_the_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """However that ended: its end of the pipe is closed then."""
    file = tmp_path / "server.log"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"http://ada:{SECRET}@h",
        "PYTHONPATH": str(Path(tracking.__file__).parents[2]),
    }
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)], stdin=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert server.stdin
    try:
        assert local.wait_until(lambda: file.exists() and "http" in file.read_text(), 60)
        server.stdin.close()
        server.wait(60)
        assert local.wait_until(lambda: not local._group_alive(server.pid), 60)
    finally:
        local._end(server)
    assert file.read_text() == "http://h\n"
