"""`dlrun ui`: the address, the port and the end of the server."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from dlrun.commands import ui
from dlrun.errors import RunError, UserError
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Journal
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.mlflow.pages import charts, shared_view
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
        assert "/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=dlrun-aaaa" in address
        assert f"/runs/{run.summary().mlflow_run_id}?workflowType=machine_learning" in lines[2]
        assert b"MLflow" in _page(address.partition("#")[0])
        _check_closed(address.partition("#")[0], run.summary().mlflow_run_id or "", outputs)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
    port = int(address.partition("#")[0].rstrip("/").rpartition(":")[2])
    assert wait_until(lambda: _refused(port), 10)


def _check_closed(root: str, run_id: str, outputs: Path) -> None:
    """Another name that leads here, a page from elsewhere, and paths out of the folder of artifacts get nothing."""
    (outputs / "secret").write_text("password")
    assert _status(f"{root}version", Host="localhost:1234") == 200
    search = f"{root}ajax-api/2.0/mlflow/experiments/search?max_results=1"
    assert _status(search) == 200
    for host in ("10.evil.example", "192.168.evil.example:5000", "evil.example", "localhost.evil.example"):
        assert _status(search, Host=host) == 403, host
    create = f"{root}ajax-api/2.0/mlflow/experiments/create"
    assert _status(create, b'{"name": "a"}', Origin="http://evil.example") == 403
    climbs = ("../secret", "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "..%252f..%252fsecret", f"{outputs}/secret")
    places = (
        f"get-artifact?run_uuid={run_id}&path=",
        "ajax-api/2.0/mlflow-artifacts/artifacts/",
        "api/2.0/mlflow-artifacts/artifacts/",
        "model-versions/get-artifact?name=a&version=1&path=",
        "static-files/",
    )
    for place in places:
        for climb in climbs:
            assert _status(f"{root}{place}{climb}", text="password") != 200, place + climb


def _status(address: str, data: bytes | None = None, text: str = "", **headers: str) -> int:
    """The status of a request; of an answer without `text` 404."""
    kind = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(address, data, headers=kind | headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as page:
            content = page.read()
            return int(page.status) if text.encode() in content else 404
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _page(address: str) -> bytes:
    # an opener of its own: the module's keeps the proxies that it first saw, which may be another test's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as page:
        return bytes(page.read())


def _refused(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def sweep_in_mlflow(outputs: Path) -> SweepDir:
    """Return a sweep of two rates and two seeds, in MLflow."""
    sweep = SweepDir(outputs / "sweeps" / "d" / "1-toy-ffff")
    configs = [{"name": "toy", "seed": n % 2, "optimizer": {"lr": 1 + n // 2}} for n in range(4)]
    jobs = tuple(
        Job(n, (f"optimizer.lr={config['optimizer']['lr']}", f"seed={config['seed']}"), config, str(n), f"g{n // 2}")  # type: ignore[index]
        for n, config in enumerate(configs)
    )
    for job in jobs:
        run = sweep.job(job.n)
        run.config.parent.mkdir(parents=True)
        run.config.write_text(json.dumps(job.config))
        journal = Journal(run.journal)
        for step in (1, 2):
            journal.metrics(step, step, {"train/loss": 1 / step, "lr": 0.1, "cost/flop": 5.0, "val/error": 0.5})
        journal.close()
        metrics = {"train/error": 0.3, "val/error": 0.1, "val/loss": 0.2, **({"test/error": 0.2} if job.n > 1 else {})}
        summarise(run, status="finished", metrics=metrics, best_step=1, steps=2)
    Manifest("toy", "d", {}, "dlrun train -m", 0.0, "val/error", False, "every", jobs=jobs).write(sweep)
    summarise(sweep, status="finished", selected={"group": "g1", "label": "optimizer.lr=2", "jobs": [2, 3]})
    assert uploader.send(sweep, TRACKERS["mlflow"], patience=0)
    return sweep


def state_of(sweep: SweepDir | RunDir, query: str) -> dict[str, Any]:
    """Return the state that MLflow's page would read for an address."""
    from mlflow import MlflowClient

    key = f"mlflow.sharedViewState.{dict(parse_qsl(query))['viewStateShareKey']}"
    (experiment,) = MlflowClient(store_address(sweep).reveal()).search_experiments(filter_string="name = 'dlrun'")
    head, _, packed = experiment.tags[key].partition(";")
    assert head == "deflate" and len(experiment.tags[key]) <= 5000
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def test_a_sweep_opens_as_the_charts_of_its_jobs(outputs: Path) -> None:
    from mlflow import MlflowClient

    sweep = sweep_in_mlflow(outputs)
    view, own = ui._view(sweep, store_address(sweep))
    place, _, query = view.partition("?")
    assert f"/runs/{sweep.summary().mlflow_run_id}?" in own
    # MLflow takes no view beside a filter or an order in the address
    assert set(dict(parse_qsl(query))) == {"workflowType", "compareRunsMode", "viewStateShareKey"}
    state = state_of(sweep, query)
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best/val/error`", True)
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "dlrun.group"}]
    assert state["selectedColumns"] == [
        "params.`optimizer.lr`",
        *(f"metrics.`{name}`" for name in ("best/val/error", "best/val/loss", "test/error")),
        "tags.`dlrun.selected`",
    ]
    lines = [chart["selectedMetricKeys"] for chart in state["compareRunCharts"] if chart["type"] == "LINE"]
    assert lines == [["train/loss", "val/loss"], ["val/error"], ["lr"]]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= {
        section["uuid"] for section in state["compareRunSections"] if section["display"]
    }
    client = MlflowClient(store_address(sweep).reveal())
    found = client.search_runs([place.split("/")[1]], state["searchFilter"], order_by=["metrics.`best/val/error`"])
    assert {run.data.tags["dlrun.id"]: run.data.tags.get("dlrun.selected") for run in found} == {
        "ffff/0": None,
        "ffff/1": None,
        "ffff/2": "true",
        "ffff/3": "true",
    }
    assert all("system/flop" in run.data.metrics and "cost/flop" not in run.data.metrics for run in found)


def test_a_store_that_takes_no_tag_is_opened_by_the_address(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def refuse(*_: object) -> None:
        raise PermissionError

    sweep = sweep_in_mlflow(outputs)
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    place, _, query = ui._view(sweep, store_address(sweep))[0].partition("?")
    asked = dict(parse_qsl(query))
    assert (asked["compareRunsMode"], asked["orderByKey"]) == ("CHART", "metrics.`best/val/error`")
    assert asked["orderByAsc"] == "true"
    found = MlflowClient(store_address(sweep).reveal()).search_runs([place.split("/")[1]], asked["searchFilter"])
    assert len(found) == 4


def test_runs_of_before_the_best_values_are_sorted_by_what_they_have(outputs: Path) -> None:
    manifest = read(sweep := sweep_in_mlflow(outputs))
    metrics = {"val/error": [0.1], "train/loss": [0.5]}
    state = shared_view.sweep_state(sweep, manifest, metrics=metrics, params={"seed"}, steps=True)
    assert state["orderByKey"] == "metrics.`val/error`"
    assert state["selectedColumns"] == ["metrics.`val/error`", "tags.`dlrun.selected`"]


@pytest.mark.parametrize(
    ("train", "validation", "scale"),
    [
        ([0.1, 0.12, 6e4], [0.3, 0.31, 7e4], "log"),  # a rate far too high would flatten the others' curves
        ([0.1, 0.12, 0.2], [0.3, 0.31, 2.0], "linear"),
        ([0.1, 0.12, math.inf], [0.3, 0.31, math.nan], "linear"),
        ([-3.0, -2.5, 100.0], [-2.0, -2.0, 500.0], "linear"),
    ],
)
def test_losses_of_several_decades_have_a_logarithmic_axis(
    train: list[float], validation: list[float], scale: str
) -> None:
    metrics = {"train/loss": train, "val/loss": validation, "lr": [0.001, 0.01, 0.1]}
    losses, rates = charts.curves("val/loss", metrics)
    assert (losses["selectedMetricKeys"], losses["scaleType"]) == (["train/loss", "val/loss"], scale)
    assert rates["scaleType"] == "log"
    assert charts.curves("val/loss", {"lr": [0.1, 0.1]})[0]["scaleType"] == "linear"


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
