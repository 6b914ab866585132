"""A run from a built configuration to the end: trained, its weights selected, tested once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

from dlrun.engine import loop
from dlrun.engine.evaluation import Collected
from dlrun.errors import ConfigError
from dlrun.execution import profiler
from dlrun.runs import presentation
from dlrun.runs.build import Built
from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.runs.measures import memory
from dlrun.runs.open_run import OpenRun, open_run, record_failure, write_cost
from dlrun.runs.recording.spikes import train
from dlrun.runs.scoring import evaluate_splits, read_test_if_due
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights
from dlrun.storage.files.opening import open_log
from dlrun.storage.machine import Machine
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.terminal import output


def run(
    built: Built,
    folder: RunDir,
    *,
    resumed: bool = False,
    job: bool = False,
    on_start: Callable[[], None] = lambda: None,
    machine: Machine | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Summary:
    """Train in `folder`, select, test once.

    Returns the summary, with the values of `extra`. SIGINT, SIGTERM and SIGUSR1 end the training at the next step,
    saved, as `KeyboardInterrupt`, `SystemExit(143)` and `Pruned`. Every early end is written as the status and raised.
    Raises `UserError` if a run has begun in the folder, unless `resumed`. `job`: one of a sweep whose folder does not
    show it.
    """
    if built.trainer.devices > 1 and built.training.ranks is None:
        raise ConfigError(
            f"trainer.devices={built.trainer.devices}: `dlrun train` and `dlrun resume` start several processes for "
            "one run, and nothing else does. Type trainer.devices=1"
        )
    with (
        Interrupt(prunes=job or folder.of_a_sweep) as interrupt,
        output.tee(open_log(folder.log)),
        open_run(built, folder, resumed=resumed, job=job, machine=machine, extra=extra) as run,
        record_failure(run, interrupt),
    ):
        on_start()
        presentation.announce(run.built, folder, start=run.state.step)
        if built.trainer.profile == "memory" and not run.state.step:
            _measure_memory(run)
        observers = run.built.observers
        observers.start(run.state.step, resumed=resumed)
        if ranks := run.built.training.ranks:
            ranks.begin(run.built.training.checkpoint(run.state))
        with _profiled(run, interrupt.stops(ranks, lambda: bool(observers.stopped))) as stop:
            run.state = train(run.built.training, run.state, run.recorder, stop)
        run.built.training.make_whole()
        return complete_run(run, interrupt)


def complete_run(run: OpenRun, interrupt: Interrupt) -> Summary:
    """Select, test and draw after the loop; returns the summary.

    Raises the exception of an interrupt.
    """
    # a wait for space on the disk, which a person may cut short
    with interrupt.at_once():
        run.recorder.insist()
    _obey(interrupt, run)
    seen = _finish(run)
    if ranks := run.built.training.ranks:
        ranks.dismiss()
    summary = run.folder.summary()
    output.say(presentation.closing(summary, run.folder, run.recorder.sample))
    _draw(run, seen, summary.best_step)
    run.built.observers.end(run.state.step, "finished", metrics=summary.metrics)
    run.journal.event("end", status="finished")
    with run.folder.edit_summary() as summary:
        summary.status = "finished"
    return summary


def _measure_memory(run: OpenRun) -> None:
    every = run.built.trainer.activation_checkpointing
    found = memory.measure(run.built.training, every)
    if not found:
        return
    output.say(memory.describe(found, every))
    with run.folder.edit_summary() as summary:
        summary.memory = found
    if (peak := found.get(memory.own_way(found, every), {}).get("activations")) is not None:
        run.journal.metrics(0, 0.0, {"memory/activations": float(peak)})


def _profiled(run: OpenRun, stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
    if run.built.trainer.profile is not True:
        return nullcontext(stop)
    training, folder = run.built.training, run.folder.path / "profile"
    return profiler.profile_steps(run.state, stop, plan=training.plan, device=training.device, folder=folder)


def _obey(interrupt: Interrupt, run: OpenRun) -> None:
    training, state = run.built.training, run.state
    # after the last step nothing is left to stop: the run is finished
    over = state.step >= training.plan.steps or training.over(state)
    if interrupt.signal is None or over:
        return
    output.say(f"  stopped at step {state.step}, saved; `dlrun resume {run.folder.id}` goes on from there")
    raise exception_for(interrupt.signal, state.step)


def _finish(run: OpenRun) -> Collected | None:
    """Evaluate the weights, test if due, write the summary."""
    built, folder = run.built, run.folder
    training, best = built.training, built.training.best
    selected_by = training.monitor if best else None
    with loop.use_average(training.average):
        last = metrics = _scores(built, best if best and best.step == run.state.step else None)
        if best is None:
            # without a validation split the last weights are the selected ones
            best = training.weights(run.state.step, last)
            checkpoint.save(folder.best, best)
    # tested, drawn and predicted with are the selected weights
    training.put(best)
    if best.step != run.state.step:
        metrics = _scores(built, best)
    training.put_own(best)
    tested, seen = read_test_if_due(built, folder, run.journal)
    run.recorder.undefined.check(metrics | tested)
    with folder.edit_summary() as summary:
        summary.metrics, summary.last = metrics | tested, last
        summary.selected_by = selected_by
        summary.stopped = built.observers.stopped
        summary.best_step = best.step
        summary.spikes = run.state.spikes
        write_cost(summary, run)
    return seen


def _scores(built: Built, best: BestWeights | None) -> dict[str, float]:
    known = best.metrics if best else {}
    # the last validation may have been at this very step: then it is not repeated
    if all(f"val/{name}" in known for name in ("loss", *built.training.metrics)):
        return evaluate_splits(built, "train") | known
    return evaluate_splits(built, "train", "validation")


def _draw(run: OpenRun, seen: Collected | None, best_step: int | None) -> None:
    built, folder = run.built, run.folder
    if not built.trainer.figures:
        return
    from dlrun.runs import figures  # matplotlib takes half a second to import

    try:
        training = built.training
        figures.draw(
            folder,
            data=built.data,
            model=training.objective.model,
            collected=seen,
            monitor=training.monitor,
            best_step=best_step,
        )
    except Exception as error:
        # a trained run is finished with or without its figures
        output.warn(f"The figures could not be drawn: {type(error).__name__}: {error}")
