"""SIGKILL at random moments of a run: MLflow must tell the truth within 30 s, and the resumed run lose no bit."""

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
from dlrun.storage.files import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.tracking.mlflow.uri import store_uri

WITHIN = 30.0
# a second and more of steps, the first checkpoints well inside it
OVERRIDES = ("+experiment=digits", "trainer.epochs=150", "trainer.checkpoint_every=400", "trainer.figures=false")


@dataclass(frozen=True)
class Death:
    """What became of one killed run."""

    moment: float
    step: int
    checkpointed: bool
    seen_after: float | None
    """The seconds until MLflow had the status KILLED; None if it had not in time."""
    resumed: bool
    """Whether MLflow had the status FINISHED in time after the resumed run's end."""
    differing: list[str]


class Store:
    """MLflow's store, asked as a person would ask it: the run's folder is not looked at."""

    def __init__(self, run: RunDir) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(store_uri(run))

    def status(self, run: RunDir) -> str | None:
        """Return what MLflow says of a run, or None if it does not know it."""
        experiment = self._client.get_experiment_by_name("dlrun")
        if experiment is None:
            return None
        runs = self._client.search_runs([experiment.experiment_id], f"tags.`dlrun.id` = '{run.id}'")
        return str(runs[0].info.status) if runs else None

    def seen(self, run: RunDir, expected: str) -> float | None:
        """Return the seconds from now until MLflow says what is expected, or None if it does not in time."""
        tic = time.monotonic()
        found = wait_until(lambda: self.status(run) == expected, WITHIN, poll=0.05)
        return time.monotonic() - tic if found else None


def killed(here: Path, moment: float) -> RunDir | None:
    """Kill a run `moment` seconds after its head was printed; return None if it had ended by itself."""
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
    """Kill a run at a moment that `draw` gives, resume it, and compare it with the run that was left alone."""
    from dlrun.runs.differences import differences

    for _ in range(20):
        moment = draw()
        run = killed(here, moment)
        if run is not None:
            break
    else:
        raise RuntimeError("Twenty runs ended before they could be killed: give them more steps.")
    after = store.seen(run, "KILLED")
    step = max((r["step"] for r in journal.read(run.journal)[0] if "step" in r), default=0)
    checkpointed = run.last.exists()
    commands.call(commands.dlrun("resume", str(run.path)), here)
    finished = store.seen(run, "FINISHED") is not None
    return Death(moment, step, checkpointed, after, finished, list(differences(whole, run)))


def _moment(chance: random.Random, nth: int, count: int, lasted: float) -> float:
    # one in each share of the time that the whole run took: before the first checkpoint too
    return lasted * (nth + chance.random()) / count


def measure(*, quick: bool = False, deaths: int | None = None, seed: int | None = None) -> Section:
    """Return how many of the killed runs were told of rightly, and resumed without a difference."""
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
    """Return how many of the deaths ended well."""
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
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one death, to see that it works")
    parser.add_argument("--deaths", type=int, help="runs to kill (10)")
    parser.add_argument("--seed", type=int, help="of the moments (drawn anew each time)")
    options = parser.parse_args()
    print(measure(quick=options.quick, deaths=options.deaths, seed=options.seed).markdown())


if __name__ == "__main__":
    main()
