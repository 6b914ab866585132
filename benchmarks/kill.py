"""SIGKILL at random moments of a run: MLflow shows KILLED within 30 s, and the resumed run is equal bit for bit."""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import commands, report
from benchmarks.alternation import spread
from benchmarks.report import Figure, Section
from dlrun.storage import journal
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.tracking.mlflow.uri import store_address

WITHIN = 30.0
# steps for over a second, with the first checkpoints well within it
OVERRIDES = ("+experiment=digits", "trainer.epochs=150", "trainer.checkpoint_every=400", "trainer.figures=false")


@dataclass(frozen=True)
class Death:
    """The outcome of one killed run."""

    moment: float
    step: int
    checkpointed: bool
    # seconds until MLflow had the status KILLED; None if it had not in time
    seen_after: float | None
    # MLflow had the status FINISHED in time after the resumed run
    resumed: bool
    differing: list[str]


class Store:
    """MLflow's store, queried as a person would: without a look at the run's folder."""

    def __init__(self, run: RunDir) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(store_address(run).reveal())

    def status(self, run: RunDir) -> str | None:
        """MLflow's status of a run; None if it does not know the run."""
        experiment = self._client.get_experiment_by_name("dlrun")
        if experiment is None:
            return None
        runs = self._client.search_runs([experiment.experiment_id], f"tags.`dlrun.id` = '{run.id}'")
        return str(runs[0].info.status) if runs else None

    def seen(self, run: RunDir, expected: str) -> float | None:
        """The seconds until MLflow shows a status; None if it does not in time."""
        tic = time.monotonic()
        found = wait_until(lambda: self.status(run) == expected, WITHIN, poll=0.05)
        return time.monotonic() - tic if found else None


def kill_run(here: Path, moment: float) -> RunDir | None:
    """Kill a run `moment` seconds after its head is printed; None if it had ended before."""
    said = ""
    with commands.start(commands.dlrun("train", *OVERRIDES), here) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("  folder "):
                break
        run = commands.folder_in(said, here)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    return run if process.returncode == -signal.SIGKILL and run.summary().status == "running" else None


def die(here: Path, draw: Callable[[], float], whole: RunDir, store: Store) -> Death:
    """Kill a run at a drawn moment, resume it, and compare it with the uninterrupted run `whole`."""
    from dlrun.runs.differences import differences

    for _ in range(20):
        moment = draw()
        run = kill_run(here, moment)
        if run is not None:
            break
    else:
        raise RuntimeError("Twenty runs ended before they could be killed. Give them more steps.")
    after = store.seen(run, "KILLED")
    step = max((r["step"] for r in journal.read(run.journal)[0] if "step" in r), default=0)
    checkpointed = run.last.exists()
    commands.call(commands.dlrun("resume", str(run.path)), here)
    finished = store.seen(run, "FINISHED") is not None
    return Death(moment, step, checkpointed, after, finished, list(differences(whole, run)))


def _moment(chance: random.Random, nth: int, count: int, lasted: float) -> float:
    # one in each equal share of the run's time, so that one falls before the first checkpoint too
    return lasted * (nth + chance.random()) / count


def measure(*, quick: bool = False, deaths: int | None = None, seed: int | None = None) -> Section:
    load, count = report.load(), deaths or (1 if quick else 10)
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    chance = random.Random(seed)
    with commands.workplace() as here:
        whole = commands.train(here, *OVERRIDES)
        lasted = whole.summary().train_seconds or 0.0
        store = Store(whole)
        found = [die(here, partial(_moment, chance, nth, count, lasted), whole, store) for nth in range(count)]
    command = f"python -m benchmarks.kill --seed {seed}"
    return Section("kill", f"kill -9 at {count} random moments", command, figures(found), NOTES, load)


NOTES = (
    f"`dlrun train {' '.join(OVERRIDES)}`, SQLite store. One moment is drawn in each equal share of the time that the"
    " whole run trained, from the printing of the head on. The status is asked of MLflow, not of the run's folder;"
    " compared are weights, optimizer, state, curves and metrics (`dlrun.runs.differences`)."
)


def figures(found: list[Death]) -> list[Figure]:
    n = len(found)

    def all_of(what: str, good: int, target: str = "") -> Figure:
        return Figure(what, f"{good} of {n}", target or f"{n} of {n}", good == n)

    delays = [d.seen_after for d in found if d.seen_after is not None]
    steps = ", ".join(f"{d.step}{'' if d.checkpointed else ' (no checkpoint yet)'}" for d in found)
    return [
        all_of(f"KILLED in MLflow within {WITHIN:.0f} s", len(delays)),
        Figure("… seen after", f"{spread(delays, '.1f', 's')}, at most {max(delays):.1f} s" if delays else "never"),
        all_of("resumed: FINISHED in MLflow", sum(d.resumed for d in found)),
        all_of("resumed: equal bit for bit", sum(not d.differing for d in found)),
        Figure("killed with this step last in the journal", steps),
        *(Figure("a difference", d.differing[0]) for d in found if d.differing),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one death, as a check that it works")
    parser.add_argument("--deaths", type=int, help="runs to kill (10)")
    parser.add_argument("--seed", type=int, help="of the moments (drawn anew each time)")
    options = parser.parse_args()
    print(measure(quick=options.quick, deaths=options.deaths, seed=options.seed).markdown())


if __name__ == "__main__":
    main()
