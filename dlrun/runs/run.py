"""The way of a run: a built configuration and a folder in, a trained, selected, tested run out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from dlrun import tracking
from dlrun.engine import loop
from dlrun.engine.evaluation import Collected
from dlrun.engine.state import State
from dlrun.errors import Pruned
from dlrun.execution import device, profiler
from dlrun.execution.timing import steps_within
from dlrun.runs import presentation, weights
from dlrun.runs.build import Built, make_plan
from dlrun.runs.interrupt import Interrupt, stopped
from dlrun.runs.recorder import Recorder, cost_of, recording
from dlrun.runs.scoring import evaluated, read_if_due
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights
from dlrun.storage.files import write_atomically
from dlrun.storage.journal import Journal, closed, curves
from dlrun.storage.machine import Machine, command_line, inspect
from dlrun.storage.rundir import RunDir, id_of
from dlrun.storage.summary import Status, Summary
from dlrun.terminal import output
from dlrun.tokenizers.description import describe


def run(
    built: Built,
    folder: RunDir,
    *,
    resumed: bool = False,
    job: bool = False,
    begun: Callable[[], None] = lambda: None,
    machine: Machine | None = None,
    noted: Mapping[str, Any] = MappingProxyType({}),
) -> Summary:
    """Train in `folder`, select, test once, and return the summary. `begun` is called once training begins.

    SIGINT, SIGTERM and SIGUSR1 end it at the next step, saved, as `KeyboardInterrupt`, `SystemExit(143)`
    and `Pruned`; they and whatever else ends it early are recorded as its status and raised. Raises
    `UserError` if there is a run in the folder already, unless that is `resumed`. `job` says that it is
    one of a sweep where the folder does not show it. What is `noted` the summary says too.
    """
    with (
        Interrupt() as interrupt,
        output.tee(folder.log),
        opened(built, folder, resumed=resumed, job=job, machine=machine, noted=noted) as run,
        ended(run, interrupt),
    ):
        begun()
        presentation.announce(run.built, folder, start=run.state.step)
        with _profiled(run, lambda: interrupt.signal is not None) as stop:
            run.state = loop.train(run.built.training, run.state, run.recorder, stop)
        return completed(run, interrupt)


@dataclass
class Open:
    """A run that has begun: its parts, its files, and where it stands."""

    built: Built
    folder: RunDir
    journal: Journal
    recorder: Recorder
    state: State
    started: float


@contextmanager
def opened(
    built: Built,
    folder: RunDir,
    *,
    resumed: bool = False,
    job: bool = False,
    machine: Machine | None = None,
    noted: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Open]:
    """Hold a run's folder, write down there that it has begun, and yield it, ready for the loop.

    Raises `UserError` if there is a run in the folder already, unless that is `resumed`.
    """
    started = time.time()
    with folder.hold():
        if not resumed:
            folder.check_free()
        device.apply(built.execution)
        built = _with_horizon(built, folder)
        state = _restored(built, folder) if resumed else State()
        with folder.edit_summary() as summary:
            _describe(summary, built, folder, machine or inspect(), job=job or folder.of_a_sweep)
            summary.started = summary.started or started
            summary.update(noted)
        if built.data.tokenizer:
            write_atomically(folder.tokenizer, json.dumps(describe(built.data.tokenizer)).encode())
        with closed(Journal(folder.journal)) as journal:
            journal.event("start", resumed_from=state.step if resumed else None)
            recorder = recording(built, folder, journal, start=state.step, job=job or folder.of_a_sweep)
            with closing(recorder):
                yield Open(built, folder, journal, recorder, state, started)


@contextmanager
def ended(run: Open, interrupt: Interrupt) -> Iterator[None]:
    """Write down how a run ends early, and raise what it ends with."""
    try:
        yield
    except BaseException as error:
        end = _as_asked(error, interrupt, run.state)
        try:
            run.recorder.close()  # who sees the end finds the checkpoints complete
        finally:
            _note_end(run, _status(end), error)
        if end is error:
            raise
        raise end from error


def completed(run: Open, interrupt: Interrupt) -> Summary:
    """Select, test and draw after the loop; return the summary. Raises what an interrupt asked for meanwhile."""
    with interrupt.at_once():
        run.recorder.insist()
    _obey(interrupt, run)
    seen = _finish(run)
    summary = run.folder.summary()
    output.say(presentation.closing(summary, run.folder, run.recorder.sample))
    _draw(run, seen, summary.best_step)
    run.journal.event("end", status="finished")
    with run.folder.edit_summary() as summary:
        summary.status = "finished"
    return summary


def _profiled(run: Open, stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
    """Return the context of the loop: the profiler's, if one is asked for."""
    if not run.built.trainer.profile:
        return nullcontext(stop)
    training, folder = run.built.training, run.folder.path / "profile"
    return profiler.profile_steps(run.state, stop, plan=training.plan, device=training.device, folder=folder)


def _as_asked(error: BaseException, interrupt: Interrupt, state: State) -> BaseException:
    """Return what ended a run: a signal, if one came before an error that may well be its doing."""
    if interrupt.signal is None or not isinstance(error, Exception) or isinstance(error, Pruned):
        return error
    return stopped(interrupt.signal, state.step)


def _note_end(run: Open, status: Status, error: BaseException) -> None:
    """Write down how a run ended early, if the disk has room for it."""
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    try:
        run.journal.event("end", status=status, error=told)
        with run.folder.edit_summary() as summary:
            if status == "pruned":
                _score_so_far(summary, run)
            summary.status, summary.error = status, told
    except OSError as full:
        output.warn(f"That the run has {status} could not be written down: {full}")


def _status(error: BaseException) -> Status:
    """Return what a run is whose training ended with `error`."""
    if isinstance(error, Pruned):
        return "pruned"
    return "killed" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def _describe(summary: Summary, built: Built, folder: RunDir, machine: Machine, *, job: bool) -> None:
    """Write into the summary of a run that begins, or goes on, what it is."""
    training, execution, data = built.training, built.execution, built.data
    sizes = {name: len(split) for name in ("train", "validation", "test") if (split := getattr(data, name))}
    summary.status, summary.error = "running", None
    summary.name = built.config["name"]
    summary.command = summary.command or command_line()
    summary.kind, summary.sweep = ("job", id_of(folder.path.parent)) if job else ("run", None)
    summary.identity, summary.identity_parts = built.identity.hash, built.identity.parts
    summary.initial_weights = built.initial_weights or summary.initial_weights
    summary.seed = built.config["seed"]
    summary.spec = asdict(data.spec)
    summary.data = {"name": data.name, "fingerprint": data.fingerprint, **sizes}  # type: ignore[typeddict-item]
    summary.parameters = built.parameters
    summary.flop_per_step = built.flop_per_step
    summary.horizon, summary.minutes = training.plan.steps, built.trainer.minutes
    summary.device, summary.device_name = execution.device.type, device.describe(execution.device)
    summary.precision, summary.threads = execution.precision, execution.threads
    summary.execution = execution.summary()
    summary.git, summary.versions = machine.git, machine.versions
    # who reads the file finds these from the start
    summary.test_reads, summary.mlflow_run_id = summary.test_reads, summary.mlflow_run_id
    summary.uploaded = tracking.unsent([built.config])


def _with_horizon(built: Built, folder: RunDir) -> Built:
    """Fix the number of steps that `trainer.minutes` stands for: once, before the first of them."""
    if built.trainer.minutes is None or built.trainer.fast:
        return built
    training = built.training
    before = folder.summary()
    known = before.horizon if before.minutes == built.trainer.minutes else None
    steps = known or steps_within(training, built.trainer.minutes)
    return replace(built, training=replace(training, plan=make_plan(built.trainer, training.plan.per_epoch, steps)))


def _restored(built: Built, folder: RunDir) -> State:
    """Return where the last checkpoint stands, its contents put into the parts; the start without one."""
    if not folder.last.exists():
        return State()
    last = checkpoint.load(folder.last, built.training.device)
    weights.put(built.training.objective.model, last.model, where=str(folder.last))
    state = loop.restore(built.training, last)
    if folder.best.exists():
        best = checkpoint.load_best(folder.best, built.training.device)
        built.training.best = best if best.step == state.best_step else None
    return state


def _obey(interrupt: Interrupt, run: Open) -> None:
    """Raise what an interrupt asked for, unless the training was complete when it came."""
    training, state = run.built.training, run.state
    over = state.step >= training.plan.steps or training.over(state)
    if interrupt.signal is None or over:
        return
    output.say(f"  stopped at step {state.step}, saved; `dlrun resume` goes on from there")
    raise stopped(interrupt.signal, state.step)


def _score_so_far(summary: Summary, run: Open) -> None:
    """Write the last and the best validation of a run that is stopped into its summary."""
    training, best = run.built.training, run.built.training.best
    logged = curves(run.folder.journal)
    summary.metrics = best.metrics if best else {}
    summary.last = {name: points[-1][1] for name, points in logged.items() if name.startswith("val/")}
    summary.selected_by, summary.best_step = (training.monitor, best.step) if best else (None, None)
    _count_steps(summary, run)


def _count_steps(summary: Summary, run: Open) -> None:
    cost, state = cost_of(run.built, measure=False), run.state
    summary.steps, summary.train_seconds = state.step, round(state.train_seconds, 3)
    summary.cost = cost.of(state.step, state.step / max(state.train_seconds, 1e-9))
    summary.seconds = round(summary.seconds + time.time() - run.started, 3)


def _finish(run: Open) -> Collected | None:
    """Evaluate the last and the selected weights, read the test split if it is due, write the summary."""
    built, folder = run.built, run.folder
    training, best = built.training, built.training.best
    with loop.use_average(training.average):
        last = metrics = _scores(built, best if best and best.step == run.state.step else None)
        if best is None:
            best = BestWeights(run.state.step, last, loop.clone_state(training.objective.model.state_dict()))
            checkpoint.save(folder.best, best)
    training.objective.model.load_state_dict(best.model)
    if best.step != run.state.step:
        metrics = _scores(built, best)
    tested, seen = read_if_due(built, folder, run.journal)
    with folder.edit_summary() as summary:
        summary.metrics, summary.last = metrics | tested, last
        summary.selected_by = training.monitor if built.data.validation else None
        summary.best_step = best.step
        _count_steps(summary, run)
    return seen


def _scores(built: Built, best: BestWeights | None) -> dict[str, float]:
    known = best.metrics if best else {}
    if all(f"val/{name}" in known for name in ("loss", *built.training.metrics)):
        return evaluated(built, "train") | known
    return evaluated(built, "train", "validation")


def _draw(run: Open, seen: Collected | None, best_step: int | None) -> None:
    """Draw the figures; a figure that fails is a warning, never a failed run."""
    built, folder = run.built, run.folder
    if not built.trainer.figures:
        return
    from dlrun.runs import figures  # matplotlib takes half a second to import

    try:
        figures.draw(folder, data=built.data, model=built.training.objective.model, collected=seen, best_step=best_step)
    except Exception as error:
        output.warn(f"The figures could not be drawn: {type(error).__name__}: {error}")
