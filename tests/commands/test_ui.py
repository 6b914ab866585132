"""`dlrun ui`: the address, the port and the end of the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from dlrun.commands import ui
from dlrun.errors import RunError, UserError
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.mlflow.uri import store_address
from tests.summaries import summarise

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(ui.__file__).parents[2]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.mark.slow
def test_the_page_of_a_run_is_served_until_ctrl_c(outputs: Path) -> None:
    run = RunDir(outputs / "runs" / "d" / "1-toy-aaaa")
    (run.path / ".hydra").mkdir(parents=True)
    run.config.write_text("name: toy")
    summarise(run, status="finished")
    assert uploader.send(run, TRACKERS["mlflow"], patience=0)
    # tests that run in the background of a shell have inherited that Ctrl-C is ignored
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from dlrun.commands.ui import main; sys.exit(main(['aaaa', '--no-browser']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment["http_proxy"] = "http://127.0.0.1:9"  # a proxy is of no use on the way to one's own machine
    environment.pop("no_proxy", None)
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert server.stdout
        lines = [server.stdout.readline().strip() for _ in range(3)]
        assert lines[0] == "Starting MLflow …"
        address = lines[1]
        assert address.startswith("http://127.0.0.1:")
        assert f"/runs/{run.summary().mlflow_run_id}?workflowType=machine_learning" in address
        assert b"MLflow" in _page(address.partition("#")[0])
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
    port = int(address.partition("#")[0].rstrip("/").rpartition(":")[2])
    assert wait_until(lambda: _refused(port), 10)


def _page(address: str) -> bytes:
    # an opener of its own: the module's keeps the proxies that it first saw, which may be another test's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as page:
        return bytes(page.read())


def _refused(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_sweep_opens_as_the_charts_of_its_jobs(outputs: Path) -> None:
    sweep = SweepDir(outputs / "sweeps" / "d" / "1-toy-ffff")
    (sweep.job(0).path / ".hydra").mkdir(parents=True)
    sweep.job(0).config.write_text("name: toy")
    summarise(sweep.job(0), status="finished", metrics={"val/error": 0.1})
    jobs = (Job(0, ("seed=0",), {"name": "toy", "seed": 0}, "0", "g"),)
    Manifest("toy", "d", {}, "dlrun train -m", 0.0, "val/error", False, "every", jobs=jobs).write(sweep)
    summarise(sweep, status="finished")
    assert uploader.send(sweep, TRACKERS["mlflow"], patience=0)

    place, _, query = ui._view(sweep, store_address(sweep)).partition("?")
    asked = dict(parse_qsl(query))
    assert (asked["compareRunsMode"], asked["orderByKey"]) == ("CHART", "metrics.`val/error`")
    assert asked["orderByAsc"] == "true"
    from mlflow import MlflowClient

    experiment = place.split("/")[1]
    found = MlflowClient(store_address(sweep).reveal()).search_runs([experiment], asked["searchFilter"])
    assert [run.info.run_id for run in found] == [sweep.job(0).summary().mlflow_run_id]


@pytest.mark.parametrize("port", [6000, 6666, 5060, 0, 70000])
def test_ports_that_browsers_refuse_are_refused(port: int) -> None:
    with pytest.raises(UserError, match=f"--port is {port}"):
        ui.main(["--port", str(port)])


def test_a_port_in_use_is_refused() -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="another program"):
            ui.main(["--port", str(other.getsockname()[1])])


def test_a_tracking_server_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    with pytest.raises(RunError, match=r"http://127.0.0.1:9 does not answer"):
        ui.main(["--no-browser"])
