"""`dlrun resume`: continue a run or a sweep, or train a run longer."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose

from omegaconf import DictConfig, OmegaConf

from dlrun.commands.train import explained, launch, logging_errors, ranks, train
from dlrun.config.changes import change
from dlrun.engine.state import State
from dlrun.errors import UserError
from dlrun.execution.ranks import world
from dlrun.runs.build import Built
from dlrun.runs.recording import nonfinite
from dlrun.runs.reload.rebuild import rebuild
from dlrun.storage import checkpoint, run_config
from dlrun.storage.lookup import find, find_sweep, sweep_of
from dlrun.storage.machine import check_single
from dlrun.storage.manifest import read
from dlrun.storage.read_counts import note_reads
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import hydra_task
from dlrun.sweeps.search import definition
from dlrun.sweeps.search import run as search
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import number


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun resume",
        description="Continue a run from its last checkpoint; with `trainer.epochs=40`, up to another length. "
        "Of a sweep, run the jobs that are missing, and continue those that were killed.",
    )
    parser.add_argument("run", metavar="RUN|SWEEP", help="its folder, or the beginning of its id")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],
        help="changes of a run's length, device, intervals or tracking",
    )
    parser.add_argument("--from-nan", action="store_true", help="take the step again whose loss was no finite number")
    parser.add_argument("--retry-failed", action="store_true", help="run a sweep's failed jobs again too")
    arguments = parser.parse_args(argv)
    if (joined := world.world()) is not None and not joined.first:
        return ranks.follow()
    if arguments.from_nan:
        return _look(arguments.run, arguments.overrides)
    try:
        resumed = resume(arguments.run, arguments.overrides, retry_failed=arguments.retry_failed)
    except launch.NeedsProcesses as asked:
        return launch.launch(asked.devices, ["resume", *argv])
    except Exception as error:
        if (told := explained(error)) is None:
            raise
        raise told from error
    return hydra_task.exit_code(resumed) if isinstance(resumed, SweepDir) else 0


def resume(reference: str, overrides: Sequence[str] = (), *, retry_failed: bool = False) -> RunDir | SweepDir:
    """Continue a run or a sweep; returns its folder.

    Raises what ended a run; a job of a sweep that fails raises nothing.
    """
    sweep = find_sweep(reference)
    if sweep is not None:
        check_single(f"dlrun resume {sweep.id}")
        _resume_sweep(sweep, overrides, retry_failed=retry_failed)
        return sweep
    if retry_failed:
        raise UserError("--retry-failed is for sweeps. `dlrun resume RUN` continues a run that failed.")
    folder = find(reference, what="run or sweep")
    _resume_run(folder, overrides)
    return folder


def _look(reference: str, overrides: Sequence[str]) -> int:
    """Take the step of a run again whose loss was no finite number."""
    if overrides:
        raise UserError(f"`{overrides[0]}`: --from-nan takes the step again as it was. Leave it out.")
    folder = find(reference, what="run")
    if folder.alive():
        raise UserError(f"{folder.path} is being trained by another process.")
    folder.check_writable("To look at this run, copy its folder to a place of your own.")
    if folder.summary().stacked:
        raise UserError(f"{folder.path} was trained in a stack, which has no checkpoint of its own. Train it alone.")
    built = rebuild(folder)
    nonfinite.look(built.training, built.execution, built.observers, folder)
    return 0


def _resume_run(folder: RunDir, overrides: Sequence[str]) -> None:
    if folder.alive():  # two would write one journal
        raise UserError(f"{folder.path} is being trained by another process.")
    folder.check_writable("To go on with this run, copy its folder to a place of your own.")
    status = folder.status()
    changed = _change(folder, overrides) if overrides else None
    trainer = (run_config.load(folder) if changed is None else changed).trainer
    # not checked yet, which `rebuild` does with words on where the run comes from
    launch.check(trainer.get("devices", 1), str(trainer.get("device", "auto")), folder.path)
    built = rebuild(folder, changed)
    if status == "finished" and (why := _why_complete(built, folder, overrides)):
        output.say(f"{folder.path} {why}")
        return
    if changed is not None:
        _say_stretched(built, folder)
    built = ranks.share(built, folder)
    try:
        # written when training begins: what fails before changes nothing
        with logging_errors(folder):
            train(built, folder, resumed=True, on_start=lambda: _write(folder, changed))
    finally:
        # with evaluation.test=every it has read the test split
        if sweep := sweep_of(folder):
            note_reads(sweep)


def _say_stretched(built: Built, folder: RunDir) -> None:
    """Say it if the rate does not go on from where a schedule of another length had come to."""
    training, summary = built.training, folder.summary()
    step, before, now = summary.steps, summary.horizon, training.plan.steps
    if not step or not before or before == now:
        return
    old, new = (training.optimizer.lr * training.schedule(step, steps) for steps in (before, now))
    if not isclose(old, new, rel_tol=1e-6, abs_tol=1e-12):
        output.say(
            f"The schedule is stretched from {before} to {now} steps: at step {step} the rate jumps from {number(old)} "
            f"to {number(new)}. A run of {now} steps from the start would have had other rates before."
        )


def _write(folder: RunDir, changed: DictConfig | None) -> None:
    if changed is not None:
        run_config.replace(folder, OmegaConf.to_yaml(changed))


def _resume_sweep(sweep: SweepDir, overrides: Sequence[str], *, retry_failed: bool) -> None:
    if overrides:
        raise UserError(
            f"`{overrides[0]}`: a sweep is continued without changes. Type `dlrun resume {sweep.id}`,"
            " with --retry-failed to run its failed jobs again."
            f"\nOther values make another sweep, which reuses the jobs that both have. Change its command:"
            f"\n  {read(sweep).command}"
            f"\nTo train one job longer, type `dlrun resume {sweep.id}/0 trainer.epochs=…`."
        )
    # a search asks its sampler for more trials, any other sweep has all of its jobs in the manifest
    go_on = search.resume if definition.is_search(sweep) else hydra_task.resume
    go_on(sweep, retry_failed=retry_failed)


def _why_complete(built: Built, folder: RunDir, overrides: Sequence[str]) -> str:
    """Why a finished run has no further step to take, and what to type; empty if it has one."""
    summary, plan, patience = folder.summary(), built.training.plan, built.training.patience
    asked = f", and `{' '.join(overrides)}` asks for no further step" if overrides else ""
    longer = f"is finished{asked}. To train it longer, type `dlrun resume {folder.id} "
    state = State()
    if folder.last.exists():
        with checkpoint.taking(folder.last):
            state = State.from_dict(checkpoint.load(folder.last).state)
    stopped = summary.stopped
    if stopped.get("by", "").removeprefix("observers.") in built.observers.stopping and state.step < plan.steps:
        return (
            f"was ended by {stopped['by']} at step {state.step}: {stopped.get('reason', '')}. To train it on without "
            f"that observer, type `dlrun resume {' '.join([folder.id, stopped['by'] + '=null', *overrides])}`."
        )
    by_clock = built.trainer.minutes is not None
    if patience is None or state.waited < patience or (state.step >= plan.steps and not by_clock):
        # a run by the clock has no last step: it is complete until it is given another time
        if by_clock:
            return f"{longer}trainer.minutes=…`." if summary.minutes == built.trainer.minutes else ""
        if not state.step:
            return "" if overrides else f"{longer}trainer.epochs=…`."
        if state.step < plan.steps:
            return ""
        return f"{longer}trainer.epochs=…` with more than {plan.epoch(state.step):.4g}."
    # a longer run alone would stop at once, again and again
    kept = [override for override in overrides if not override.startswith("trainer.patience=")]
    return (
        f"was ended by trainer.patience={patience} at step {state.step}: {built.training.monitor} has not "
        f"become better in {state.waited} validations. To train it on, give it more patience, or none: "
        f"`dlrun resume {' '.join([folder.id, 'trainer.patience=null', *kept])}`."
    )


def _change(folder: RunDir, overrides: Sequence[str]) -> DictConfig:
    config = run_config.load(folder)
    if folder.of_a_sweep and any(override.startswith("evaluation.test=") for override in overrides):
        raise UserError(
            f"{folder.id} is a job of a sweep, which reads its test split as evaluation.test of the sweep says. To "
            f"read it nevertheless, type `dlrun test {folder.id} --force`."
        )
    change(config, overrides, run=folder.id)
    return config
