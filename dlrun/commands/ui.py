"""`dlrun ui`: the runs in MLflow's pages, on this machine alone."""

from __future__ import annotations

import os
import signal
import sys
import webbrowser
from contextlib import redirect_stderr

from dlrun import tracking
from dlrun.commands.sync import all_tracked, count, find_any
from dlrun.errors import RunError
from dlrun.storage import lookup
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.tracking.content.settings import config_of, experiment_of
from dlrun.tracking.mlflow.client import open_client
from dlrun.tracking.mlflow.diagnosis import explain
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hiding, message
from dlrun.tracking.mlflow.pages import addresses as pages
from dlrun.tracking.mlflow.pages.open import page_of
from dlrun.tracking.mlflow.server import local
from dlrun.tracking.mlflow.sqlite_tables import describe_way
from dlrun.tracking.mlflow.store import prepare, quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, check_driver, has_server, page, store_address

Chosen = RunDir | SweepDir | None
"""The run or sweep to open; None: all runs."""


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun ui",
        description="Show all runs in MLflow, or one run or sweep. Ctrl-C ends it. With MLFLOW_TRACKING_URI set to a "
        "server's address, open that server.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN|SWEEP", help="its folder, or the beginning of its id")
    parser.add_argument("--port", type=int, help="the port to listen on (default: the first free one from 5000 on)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    options = parser.parse_args(argv)
    chosen = find_any(options.run) if options.run else None
    if chosen:
        chosen.summary()  # a damaged one ends this now, not when the server is up
    address = store_address(chosen)
    check_driver()
    if options.port is not None:
        local.check_port(options.port)
    _catch_up()
    quiet_mlflow()
    if has_server(address):  # its own pages: nothing is started here
        return _open(page(address, "") or f"{address}/#/", chosen, address, browser=not options.no_browser)
    return _serve(address, options.port or local.free_port(), chosen, browser=not options.no_browser)


def _catch_up() -> None:
    found = all_tracked()
    tracking.mark_killed(found)
    # false, not missing: a folder without the key was never to be sent
    left = [f for f in found if not f.alive() and f.summary().uploaded.get("mlflow") is False]
    if left:
        # beside the server, which need not wait for them
        tracking.sync_in_background({"mlflow": left}, lookup.outputs() / "sync.log")
        are = "is" if len(left) == 1 else "are"
        output.say(f"{len(left)} of {count(found)} {are} not wholly in MLflow yet: the rest appears while this runs.")


def _serve(address: Address, port: int, chosen: Chosen, *, browser: bool) -> int:
    artifacts = artifact_folder(chosen)
    try:
        prepare(address, artifacts)
    except Exception as error:  # whatever the file has
        raise RunError(explain(error, address) or f"The store {address} cannot be opened: {message(error)}") from None
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        output.say("Starting MLflow …")
        with local.serve(address, artifacts, port) as process:
            _open(f"http://127.0.0.1:{port}/#/", chosen, address, browser=browser)
            output.say(describe_way(address))
            output.say("Ctrl-C ends it.")
            return process.wait()
    except KeyboardInterrupt as stop:
        # 128 and the signal's number, as shells count: SIGTERM is 15, Ctrl-C 2
        return 143 if stop.args else 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def _open(root: str, chosen: Chosen, address: Address, *, browser: bool) -> int:
    try:
        # what libraries print of an address has its password
        with redirect_stderr(hiding(sys.stderr)):
            view, own = _view(chosen, address)
    except Exception as error:  # whatever the store or the network has
        told = explain(error, address) or f"The tracking server {address} does not answer: {message(error, 300)}"
        raise RunError(told) from None
    url = f"{root}{view}"
    output.say(url)
    if own:
        output.say(f"Description, parameters and files: {root}{own}")
    # no browser without a display: `webbrowser` might start one in the terminal
    if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(url)
    return 0


def _view(chosen: Chosen, address: Address) -> tuple[str, str]:
    """The addresses behind `#/`: of the charts of a run, of a sweep or of all, and of the chosen one's own page."""
    client = open_client(address)
    run_id = chosen.summary().mlflow_run_id if chosen else None
    if chosen and run_id:
        return page_of(client, chosen, run_id)
    if chosen and tracking.TRACKERS["mlflow"] in tracking.trackers_of(chosen):
        output.warn(f"{chosen.id} is not in MLflow yet. Type `dlrun sync {chosen.id}`.")
    elif chosen:
        output.warn(f"{chosen.id} was not sent to MLflow (tracking.backends). Type `{tracking.link(chosen)}`.")
    found = client.get_experiment_by_name(_experiment(chosen))
    return (pages.of_experiment(found.experiment_id) if found else f"experiments?{pages.MODE}"), ""


def _experiment(chosen: Chosen) -> str:
    """The experiment of the chosen run or the newest."""
    newest = [chosen] if chosen else all_runs()[-1:]
    return experiment_of(config_of(newest[0]) if newest else {})
