"""`dlrun ui`: MLflow's pages of the runs, on this machine alone."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from contextlib import closing, suppress
from typing import Any

from dlrun import tracking
from dlrun.commands.sync import counted, everything, named
from dlrun.errors import RunError, UserError
from dlrun.storage import lookup, manifest
from dlrun.storage.files import wait_until
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output as console
from dlrun.tracking.mlflow import pages
from dlrun.tracking.mlflow.store import prepare, quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, has_server, redacted

# browsers refuse to open these
UNSAFE_PORTS = frozenset({5060, 5061, 6000, *range(6665, 6670)})

Chosen = RunDir | SweepDir | None
"""What is to be opened; None: all runs."""


def main(argv: list[str]) -> int:
    """Serve the store on 127.0.0.1 until Ctrl-C; a store behind a server is only opened."""
    parser = argparse.ArgumentParser(
        prog="dlrun ui", description="Show the runs in MLflow, or the page of RUN; Ctrl-C ends it."
    )
    parser.add_argument("run", nargs="?", metavar="RUN|SWEEP", help="a folder, or the beginning of an id")
    parser.add_argument("--port", type=int, help="the port to listen on (default: the first free one from 5000)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    options = parser.parse_args(argv)
    chosen = named(options.run) if options.run else None
    uri = tracking.store_uri(chosen)
    if options.port is not None:
        _check_port(options.port)
    _catch_up()
    if has_server(uri):
        quiet_mlflow()
        return _open(redacted(uri).rstrip("/"), chosen, uri, browser=not options.no_browser)
    return _serve(uri, options.port or _free_port(), chosen, browser=not options.no_browser)


def _catch_up() -> None:
    """Have the runs and sweeps that nobody finished sent beside the server, which need not wait for them."""
    found = everything()
    tracking.bury(found)
    left = [folder for folder in found if not folder.alive() and folder.summary().uploaded is False]
    if left:
        tracking.sync_in_background(left, lookup.outputs() / "sync.log")
        console.say(f"{len(left)} of {counted(found)} were not wholly sent to MLflow: they appear while this runs.")


def _serve(uri: str, port: int, chosen: Chosen, *, browser: bool) -> int:
    quiet_mlflow()
    artifacts = artifact_folder(chosen)
    prepare(uri, artifacts)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", uri, "--artifacts-destination", artifacts.as_uri()]
    # without MLflow's own job queue: eight processes and half a gigabyte less
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    log = artifacts.parent / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        console.say("Starting MLflow …")
        address = f"http://127.0.0.1:{port}"
        if not wait_until(lambda: server.poll() is not None or _answers(address), 120, poll=0.2) or server.poll():
            raise RunError(f"MLflow's server did not start on port {port} (exit code {server.poll()}): see {log}.")
        _open(address, chosen, uri, browser=browser)
        console.say("Ctrl-C ends it.")
        return server.wait()
    except KeyboardInterrupt as stop:
        return 143 if stop.args else 130
    finally:
        _end(server)
        signal.signal(signal.SIGTERM, previous)


def _open(address: str, chosen: Chosen, uri: str, *, browser: bool) -> int:
    from mlflow.exceptions import MlflowException

    try:
        url = f"{address}/#/{_view(chosen, uri)}"
    except MlflowException as error:
        raise RunError(f"The tracking server {address} does not answer: {str(error)[:300]}") from None
    console.say(url)
    if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(url)
    return 0


def _view(chosen: Chosen, uri: str) -> str:
    """Return the part of the address behind `#/`: a run's page, the charts of a sweep, or all runs."""
    from mlflow import MlflowClient

    client: Any = MlflowClient(tracking_uri=uri)
    run_id = chosen.summary().mlflow_run_id if chosen else None
    if chosen and run_id:
        experiment = client.get_run(run_id).info.experiment_id
        return _charts(experiment, chosen) if isinstance(chosen, SweepDir) else pages.of_run(experiment, run_id)
    if chosen:
        console.warn(f"{chosen.id} is not in MLflow yet: type `dlrun sync {chosen.id}`.")
    found = client.get_experiment_by_name(_experiment(chosen))
    return pages.of_experiment(found.experiment_id) if found else f"experiments?{pages.MODE}"


def _charts(experiment: str, sweep: SweepDir) -> str:
    what = manifest.read(sweep)
    return pages.of_sweep(experiment, sweep.id, monitor=what.monitor, higher_is_better=what.higher_is_better)


def _experiment(chosen: Chosen) -> str:
    """Return the experiment to show: that of the chosen run, or of the newest one."""
    from dlrun.tracking.describe import configuration

    if isinstance(chosen, SweepDir):
        jobs = manifest.read(chosen).jobs
        config = jobs[0].config if jobs else {}
    else:
        newest = [chosen] if chosen else all_runs()[-1:]
        config = configuration(newest[0]) if newest else {}
    return str((config.get("tracking") or {}).get("experiment", "dlrun"))


def _free_port() -> int:
    return next(port for port in range(5000, 6000) if port not in UNSAFE_PORTS and _is_free(port))


def _check_port(port: int) -> None:
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


def _answers(address: str) -> bool:
    # the server is on this machine: a proxy of the environment would not find it
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with all its processes: they are one group."""
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


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)
