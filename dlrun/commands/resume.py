"""`dlrun resume`: go on with a run where its last checkpoint stands, or make it longer; run what a sweep has left."""

from __future__ import annotations

import argparse

from omegaconf import DictConfig, OmegaConf

from dlrun.commands.train import conduct
from dlrun.config.changes import change
from dlrun.engine.state import State
from dlrun.errors import UserError
from dlrun.runs.build import Built
from dlrun.runs.reload import rebuild
from dlrun.storage import checkpoint
from dlrun.storage.files import write_atomically
from dlrun.storage.lookup import find, find_sweep
from dlrun.storage.manifest import read
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import hydra_task
from dlrun.sweeps.search import conduct as search
from dlrun.sweeps.search import definition
from dlrun.terminal import output


def main(argv: list[str]) -> int:
    """Resume the run or the sweep that `argv` names."""
    parser = argparse.ArgumentParser(
        prog="dlrun resume",
        description="Go on with a run where its last checkpoint stands. `trainer.epochs=40` makes it longer. "
        "Of a sweep, run what is missing, and go on with what was killed.",
    )
    parser.add_argument("run", metavar="RUN|SWEEP", help="its folder, or the beginning of its id")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", default=[], help="changes, of trainer, evaluation, tracking"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run the jobs of a sweep that failed again too")
    arguments = parser.parse_args(argv)
    sweep = find_sweep(arguments.run)
    if sweep is not None:
        return _sweep(sweep, arguments)
    if arguments.retry_failed:
        raise UserError("--retry-failed goes with a sweep; `dlrun resume RUN` goes on with a run that failed.")
    folder = find(arguments.run, what="run or sweep")
    if folder.alive():
        raise UserError(f"{folder.path} is being trained by another process.")
    status = folder.status()
    changed = _changed(folder, arguments.overrides) if arguments.overrides else None
    built = rebuild(folder, changed)
    if status == "finished" and _complete(built, folder):
        output.say(f"{folder.path} is finished. To train it longer: dlrun resume {folder.id} trainer.epochs=…")
        return 0
    # not before training begins: what fails until then changes nothing
    conduct(built, folder, resumed=True, begun=lambda: _write(folder, changed))
    return 0


def _write(folder: RunDir, changed: DictConfig | None) -> None:
    if changed is not None:
        write_atomically(folder.config, OmegaConf.to_yaml(changed).encode())


def _sweep(sweep: SweepDir, arguments: argparse.Namespace) -> int:
    if arguments.overrides:
        raise UserError(
            f"A sweep is continued as it was asked for, so `{arguments.overrides[0]}` cannot be given: `dlrun resume "
            f"{sweep.id}` runs what is missing, with --retry-failed what failed too.\nOther values are another sweep, "
            f"which reuses the jobs that both have: give the command again with them:\n  {read(sweep).command}\n"
            f"One of its jobs can be made longer: `dlrun resume {sweep.id}/0 trainer.epochs=…`."
        )
    go_on = search.resume if definition.is_search(sweep) else hydra_task.resume
    return go_on(sweep, retry_failed=arguments.retry_failed)


def _complete(built: Built, folder: RunDir) -> bool:
    """Return whether the checkpoint stands at the end of the plan."""
    if built.trainer.minutes is not None:
        return folder.summary().minutes == built.trainer.minutes
    state = State(**checkpoint.load(folder.last).state)
    patience = built.training.patience
    return state.step >= built.training.plan.steps or (patience is not None and state.waited >= patience)


def _changed(folder: RunDir, overrides: list[str]) -> DictConfig:
    config = OmegaConf.load(folder.config)
    assert isinstance(config, DictConfig)
    change(config, overrides, run=folder.id)
    return config
