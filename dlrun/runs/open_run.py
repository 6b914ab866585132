"""A run between its start and its end: its folder is held, and its summary says how it begins and ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dlrun import tracking
from dlrun.config.settings import Cost
from dlrun.datasets.tensors import raw_inputs
from dlrun.engine.reading.streams import size_of
from dlrun.engine.state import State
from dlrun.errors import NonFinite, Pruned, RunError
from dlrun.execution import device
from dlrun.execution.energy.bill import NOTHING, Bill, open_bill, spent_before
from dlrun.execution.energy.sampler import Sampler, sampling
from dlrun.execution.timing import steps_within
from dlrun.runs.build import Built, make_plan
from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.runs.recorder import RunRecorder, make_recorder, step_cost
from dlrun.runs.recording.nonfinite import locate
from dlrun.runs.recording.restore import restore
from dlrun.runs.weights import learned
from dlrun.storage import run_config
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.journal import Journal, check_not_emptied, count_test_reads, curves, first_start, open_journal
from dlrun.storage.machine import Machine, inspect
from dlrun.storage.rundir import RunDir, id_of
from dlrun.storage.summary import Status, Summary
from dlrun.terminal import output
from dlrun.tokenizers.description import describe
from dlrun.types import Quantity


@dataclass
class OpenRun:
    """A run whose folder this process holds."""

    built: Built
    folder: RunDir
    journal: Journal
    recorder: RunRecorder
    state: State
    # seconds of the processes before this one, and when this one began, by the monotonic clock
    before: float
    began: float
    bill: Bill = field(default_factory=lambda: Bill(Cost()))
    sampler: Sampler | None = None


@contextmanager
def open_run(
    built: Built,
    folder: RunDir,
    *,
    resumed: bool = False,
    job: bool = False,
    machine: Machine | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[OpenRun]:
    """Hold a run's folder and yield the run for the loop.

    Its start is written into the summary and the journal; the summary gets the values of `extra` too. Raises
    `UserError` if a run has begun in the folder, unless `resumed`.
    """
    started, began = time.time(), time.monotonic()
    with folder.hold(), sampling(built.execution.device) as sampler:
        if not resumed:
            folder.check_free()
            run_config.keep_resolved(folder, built.config)
        # before the first tensor operation: threads and determinism are the process's
        device.apply(built.execution)
        built = _fix_horizon(built, folder)
        state = restore(built.training, built.observers, folder) if resumed else State()
        # of a finished run the figures and the trackers have the curves that its journal has lost
        if folder.summary().status != "finished":
            check_not_emptied(folder.journal, state.step)
        # a sweep of dlrun shows it by its manifest, a foreign launcher passes `job`
        job = job or folder.of_a_sweep
        with folder.edit_summary() as summary:
            _describe(summary, built, folder, machine or inspect(), job=job)
            # of a resumed run the first start counts, also if the summary was lost
            first = summary.started or (first_start(folder.journal) if resumed else None) or started
            summary.started = first
            # a process that SIGKILL ended has not written its own: its checkpoint has some of them
            summary.seconds = before = max(summary.seconds, round(state.train_seconds, 3))
            summary.update(extra)
        built.training.memory.keep = partial(_keep_found, folder)
        _keep_learned(built, folder)
        # `dlrun sample` makes the tokenizer again without the data set
        if built.data.tokenizer:
            write_atomically(folder.tokenizer, dumps(describe(built.data.tokenizer)).encode())
        spent = spent_before(folder.summary().cost, folder.journal, seconds=before) if resumed else NOTHING
        bill = open_bill(Cost(**built.config.get("cost", {})), sampler, spent, sharing=extra.get("stacked", 1))
        if words := bill.lacking():
            output.warn(words)
        with open_journal(folder.journal) as journal:
            journal.event("start", started=first, resumed_from=state.step if resumed else None)
            stacked = bool(extra.get("stacked"))
            made = make_recorder(built, folder, journal, start=state.step, job=job, stacked=stacked)
            made.price(lambda: bill.entries(time.monotonic() - began))
            with closing(made) as recorder:
                yield OpenRun(built, folder, journal, recorder, state, before, began, bill, sampler)


@contextmanager
def record_failure(run: OpenRun, interrupt: Interrupt) -> Iterator[None]:
    """Write the status and error of a run that ends early.

    Raises that error, or the interrupt that caused it.
    """
    try:
        yield
    except BaseException as error:
        ranks = run.built.training.ranks
        # a signal says itself why the run ends; who sent it may have ended the process that the others ask, too
        lost = ranks.explain(error) if ranks and isinstance(error, Exception) else None
        end = RunError(lost) if lost else _cause(error, interrupt, run.state)
        if isinstance(end, NonFinite):
            end = locate(run.built.training, run.folder, end)
        try:
            run.recorder.close()  # who sees the end finds the checkpoints complete
            run.built.observers.end(run.state.step, _status(end), error=end)
        finally:
            _write_status(run, _status(end), end if lost or isinstance(end, NonFinite) else error)
            if interrupt.obeyed_at_once:
                output.say(_say_saved(run))
        if end is error:
            raise
        # it is said in full: a traceback of the loop would tell nothing
        raise end from (None if isinstance(end, NonFinite) else error)


def _cause(error: BaseException, interrupt: Interrupt, state: State) -> BaseException:
    """The signal behind an error, else the error."""
    # an error after a signal is likely its doing: Ctrl-C reaches the workers and the subprocesses too
    if interrupt.signal is None or not isinstance(error, Exception) or isinstance(error, Pruned):
        return error
    return exception_for(interrupt.signal, state.step)


def _say_saved(run: OpenRun) -> str:
    """The line on a run that ended in the middle of a step."""
    step, advice = run.recorder.saved_step, f"`dlrun resume {run.folder.id}`"
    if step is None:
        return f"  ended at once, before the first checkpoint; {advice} begins at the first step"
    return f"  ended at once; step {step} is saved, {advice} goes on from there"


def _write_status(run: OpenRun, status: Status, error: BaseException) -> None:
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    try:
        run.journal.event("end", status=status, error=message)
        with run.folder.edit_summary() as summary:
            # a search compares pruned runs by their last validation; others are resumed or failed
            if status == "pruned":
                _score_so_far(summary, run)
            write_cost(summary, run)
            summary.status, summary.error = status, message
    # must not replace the exception that ends the run
    except OSError as full:
        output.warn(f"That the run has {status} could not be written down: {full}")


def _status(error: BaseException) -> Status:
    if isinstance(error, Pruned):
        return "pruned"
    return "killed" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def _describe(summary: Summary, built: Built, folder: RunDir, machine: Machine, *, job: bool) -> None:
    training, execution, data = built.training, built.execution, built.data
    sizes = {name: n for name in ("train", "validation", "test") if (n := size_of(getattr(data, name)))}
    summary.name, summary.status, summary.error, summary.nonfinite = built.config["name"], "running", None, {}
    if summary.command is None:
        summary.command, summary.directory = machine.command, str(Path.cwd())
    summary.kind, summary.sweep = ("job", id_of(folder.path.parent)) if job else ("run", None)
    # the result depends on these
    summary.identity, summary.identity_parts = built.identity.hash, built.identity.parts
    summary.initial_weights = built.initial_weights or summary.initial_weights
    # a run that is resumed has weights of its own: what it began with stays
    summary.origin = built.origin if built.config["init_from"] or not summary.origin else summary.origin
    summary.config_digests = run_config.digests(folder)
    # a summary that was lost, or is an older copy, counts too few
    summary.test_reads = max(summary.test_reads, count_test_reads(folder.journal))
    summary.seed = built.config["seed"]
    summary.spec = asdict(data.spec)
    summary.inputs = raw_inputs.describe(data.inputs, data.prepare)
    splits = {f"{split}_fingerprint": found for split, found in data.split_fingerprints.items()}
    splits |= {"columns": data.notes["columns"]} if "columns" in data.notes else {}
    summary.data = {"name": data.name, "fingerprint": data.fingerprint, **sizes, **splits, "shared": built.shared}  # type: ignore[typeddict-item]
    summary.quantities = _with_given_direction(built)
    summary.parameters, summary.trained_parameters = built.parameters, built.trained
    summary.flop_per_step = built.flop_per_step
    summary.horizon, summary.minutes = training.plan.steps, built.trainer.minutes
    summary.device, summary.device_name = execution.device.type, device.describe(execution.device)
    summary.precision, summary.threads = execution.precision, execution.threads
    summary.execution = execution.summary()
    summary.git, summary.versions = machine.git, machine.versions
    # who reads the file finds these from the start
    summary.mlflow_run_id = summary.mlflow_run_id
    summary.uploaded = tracking.unsent([built.config])


def _keep_found(folder: RunDir, found: list[dict[str, Any]]) -> None:
    with folder.edit_summary() as summary:
        summary.execution = {**summary.execution, "micro_batch": found}


def _keep_learned(built: Built, folder: RunDir) -> None:
    """Write what the run learns from, and what its first weights had learned from."""
    # of a run that is resumed with its own weights the file says both
    if not built.config["init_from"] and folder.learned.exists():
        return
    found = learned.from_data(built.data) | (built.initial_learned or learned.Learned())
    if built.initial_learned is None and folder.summary().initial_weights:
        found |= learned.Learned(unknown=(f"{folder.path} began with weights that nothing is known of",))
    learned.write(folder, found)


def _with_given_direction(built: Built) -> dict[str, Quantity]:
    training, name = built.training, built.training.monitor.removeprefix("val/")
    # the user may have said it on the command line
    quantity: Quantity = {**built.quantities[name], "higher_is_better": training.higher_is_better}
    return {**built.quantities, name: quantity}


def _fix_horizon(built: Built, folder: RunDir) -> Built:
    """Set the plan's steps from `trainer.minutes`."""
    if built.trainer.minutes is None or built.trainer.fast:
        return built
    training = built.training
    before = folder.summary()
    # measured once: a resumed run with another horizon would follow another schedule
    known = before.horizon if before.minutes == built.trainer.minutes else None
    return with_steps(built, known or steps_within(training, built.trainer.minutes))


def with_steps(built: Built, steps: int) -> Built:
    """The run with a plan of so many steps, as `trainer.minutes` asks for."""
    training = built.training
    return replace(built, training=replace(training, plan=make_plan(built.trainer, training.plan.per_epoch, steps)))


def _score_so_far(summary: Summary, run: OpenRun) -> None:
    """Write the validation results of a stopped run."""
    training, best = run.built.training, run.built.training.best
    logged = curves(run.folder.journal)
    summary.metrics = best.metrics if best else {}
    summary.last = {name: points[-1][1] for name, points in logged.items() if name.startswith("val/")}
    summary.selected_by, summary.best_step = (training.monitor, best.step) if best else (None, None)
    write_cost(summary, run)


def write_cost(summary: Summary, run: OpenRun) -> None:
    """Write a run's steps so far, their time and cost."""
    # the peak was measured at the start, or not at all
    cost, state, bill = step_cost(run.built, measure=False), run.state, run.bill
    samples = run.built.training.batches.seen(state.step)
    if run.sampler:
        run.sampler.sample()
    entries = bill.entries(time.monotonic() - run.began)
    summary.cost = cost.of(state.step, samples / max(state.train_seconds, 1e-9)) | entries
    if entries:
        notes = {"basis": bill.basis, "currency": bill.prices.currency}
        summary.cost_notes = {**summary.cost_notes, **{name: text for name, text in notes.items() if text}}
    write_time(summary, run)


def write_time(summary: Summary, run: OpenRun) -> None:
    """Write a run's steps so far and their time; may be called again."""
    state = run.state
    summary.steps, summary.train_seconds = state.step, round(state.train_seconds, 3)
    summary.seconds = round(run.before + time.monotonic() - run.began, 3)
