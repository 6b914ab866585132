"""A clock that jumps, runs that begin at once, a tracker or a store that is out of order."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from dlrun.storage.files.waiting import wait_until
from dlrun.storage.rundir import outputs_above
from tests.faults import breaking
from tests.faults.judging import ENDS, Trial
from tests.faults.server import WAYS, MlflowServer, Proxy
from tests.faults.victims import RUN

# the clock decides when a checkpoint is written, too
TIMED = (*RUN, "trainer.checkpoint_every=0.2 s")


@pytest.mark.parametrize("jump", ["-1h", "+1d"])
def test_clock_jumps(trial: Trial, jump: str) -> None:
    variables, set_clock = breaking.clock(trial.place)
    victim = trial.lay(trial.place / "lab", **variables)
    main = victim.start(*TIMED)
    trial.begun(main)
    trial.moment(1.5)
    set_clock(jump)
    trial.ends(main, 0)
    trial.resumed()
    trial.stored_once()
    for run in victim.runs:
        summary = run.summary()
        trial.check(0 <= summary.seconds < ENDS, f"the run took {summary.seconds} s")
        trial.check(0 <= (summary.train_seconds or 0) < ENDS, f"it was trained for {summary.train_seconds} s")
        outputs = outputs_above(run.path)
        assert outputs is not None
        with closing(sqlite3.connect(outputs / "mlflow.db")) as store:
            begun, ended = store.execute("SELECT start_time, end_time FROM runs").fetchone()
            last = "SELECT MAX(step) FROM metrics m WHERE m.key = l.key AND m.run_uuid = l.run_uuid"
            old = store.execute(f"SELECT key FROM latest_metrics l WHERE step < ({last})").fetchall()
        trial.check(ended >= begun, f"it ended in MLflow {begun - ended} ms before it began")
        trial.check(not old, f"MLflow's tables show earlier values of {old}")
    trial.alone()
    trial.conclude()


def test_two_runs_in_one_second(trial: Trial) -> None:
    pair = [trial.victim.start(*RUN) for _ in range(2)]
    for each in pair:
        trial.ends(each, 0)
    trial.check(len(trial.victim.runs) == 2, f"{len(trial.victim.runs)} folders")
    trial.resumed()
    trial.stored_once()
    trial.alone()
    trial.conclude()


@pytest.mark.parametrize("way", WAYS)
def test_tracker(trial: Trial, server: MlflowServer, way: str) -> None:
    proxy = Proxy(server, trial.chance)
    trial.stack.callback(proxy.close)
    trial.store = server.stored
    victim = trial.lay(trial.place / "lab", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{proxy.port}")
    main = victim.start(*RUN, "tracking.wait=0.1")
    if trial.chance.random() < 0.8:
        trial.begun(main)
    trial.moment(8)  # an uploader has much to import
    with proxy.broken(way):
        trial.moment(6)
    since = time.monotonic()
    trial.ends(main, 0)
    # it tries again by itself; what it has given up is sent by `dlrun sync`
    wait_until(lambda: not victim.processes(), 60, poll=0.2)
    trial.true_in_time(max(since, time.monotonic() - 0.1) if not victim.processes() else since)
    trial.resumed()
    trial.stored_once()
    trial.alone()
    trial.conclude()


FAULTS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "locked": breaking.locked,
    "corrupt": breaking.corrupt,
    "of a later layout": breaking.later,
    "deleted": breaking.deleted,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_store(trial: Trial, fault: str) -> None:
    victim = trial.victim
    main = victim.start(*RUN, "tracking.wait=0.1", "trainer.steps=1500")
    store = victim.here / "outputs" / "mlflow.db"
    # the cached empty store is copied, so it is whole once it is there
    trial.begun(main, of=store.exists)
    wait_until(store.exists, ENDS)
    trial.moment(1.5)
    with FAULTS[fault](store):
        trial.moment(4)
        trial.ends(main, 0)
    for _ in range(2):
        wait_until(lambda: not victim.processes(), 60, poll=0.2)
        # a store that was lost is filled anew
        victim.call("sync", *(["--again"] if fault in ("corrupt", "deleted") else []))
    trial.resumed()
    trial.stored_once()
    trial.alone()
    trial.conclude()
