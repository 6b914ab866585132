"""The end of a sweep: one configuration selected by validation, tested once with all its seeds, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dlrun import tracking
from dlrun.report.terminal_text import terminal_text
from dlrun.report.write import write
from dlrun.storage.manifest import Manifest
from dlrun.storage.read_counts import note_reads
from dlrun.storage.results import Result
from dlrun.storage.summary import Status
from dlrun.storage.sweep_summary import Selection, Stratum
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import run_job
from dlrun.sweeps.decision import Decisions, SweepState, decide, read_state, untested
from dlrun.sweeps.pool.display import Display
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.sweeps.runner import SweepRunner
from dlrun.terminal import output
from dlrun.terminal.format import counted


def finish(runner: SweepRunner, choose: Callable[[SweepState], Decisions] = decide) -> int:
    """Select, test and report; return the exit code.

    It is 1 if a job did not finish or could not be tested. By default nothing is selected
    while jobs are missing or killed.
    """
    sweep, manifest = runner.store.sweep, runner.store.manifest
    state = read_state(sweep, manifest)
    decisions = choose(state)
    # written before the test: from the first read on it is final, whatever happens to this process
    _write(sweep, decisions)
    failures = _test(runner, untested(state, decisions), decisions)
    # once more, for the tests have written their metrics
    found = runner.store.results()
    failed = [result for result in found if result.status in ("failed", "killed", "missing", "damaged")]
    for label, part in state.strata.items():
        if not part.unended:
            own = [result for result in found if result.job.group in manifest.strata[label]]
            _say_unselected(manifest, own, decisions[label].selection)
    _summarise(state, found)
    _report(runner)
    status: Status = "failed" if failed or failures else "finished"
    runner.store.close(status)
    # after the report: with the final status
    output.say(_closing(sweep))
    _say_failures(sweep, failed, len(found))
    _wait(runner)
    return 1 if failed or failures else 0


def is_selected(sweep: SweepDir, number: str) -> bool:
    return any(number in map(str, chosen.get("jobs", [])) for chosen in sweep.summary().selections)


def _write(sweep: SweepDir, decisions: Decisions) -> None:
    with sweep.edit_summary() as summary:
        if len(decisions) == 1:
            (only,) = decisions.values()
            summary.selected, summary.selected_now, summary.strata = only.selection, only.now, ()
            return
        summary.selected = summary.selected_now = None
        summary.strata = [
            Stratum(label=label, selected=each.selection, selected_now=each.now) for label, each in decisions.items()
        ]


def _test(runner: SweepRunner, due: Sequence[Result], decisions: Decisions) -> bool:
    """Test each selected job once; returns True if one failed."""
    # a sweep that was interrupted here has tested some of them already
    if not due:
        return False
    failures: list[TaskResult] = []
    display = Display(len(due))
    sweep = runner.store.sweep.id
    tasks = [Task(r.job.n, partial(run_job.test, r.run, reader=sweep), r.job.label, r.run.log) for r in due]

    def done(result: TaskResult) -> bool:
        display.done += 1
        if result.error is not None:
            failures.append(result)
        return True

    labels = [each.selection.get("label", "") for each in decisions.values() if each.selection]
    output.say(f"testing {'; '.join(labels)}: {counted(len(due), 'job')}, once each")
    runner.run_tasks(tasks, on_result=done, on_tick=display.heartbeat)
    for failed in failures:
        output.warn(f"{failed.label} could not be tested: {failed.message}. The log is {failed.log}")
    return bool(failures)


def _summarise(before: SweepState, found: Sequence[Result]) -> None:
    sweep = before.sweep
    note_reads(sweep)
    with sweep.edit_summary() as summary:
        summary.count([result.status for result in found])
        summary.reused = sum(result.reused for result in found)
        after = replace(before, results=found, summary=summary).strata
        if summary.selected:
            summary.selected = _mark_read(after[""], summary.selected)
        summary.strata = [_mark_stratum(after, stratum) for stratum in summary.strata]


def _mark_stratum(after: Mapping[str, SweepState], stratum: Stratum) -> Stratum:
    chosen = stratum.get("selected")
    return {**stratum, "selected": _mark_read(after[stratum["label"]], chosen)} if chosen else stratum


def _mark_read(after: SweepState, chosen: Selection) -> Selection:
    return {**chosen, "read": True} if after.is_final else chosen


def _say_unselected(manifest: Manifest, found: Sequence[Result], chosen: Selection | None) -> None:
    groups = {group: [r for r in found if r.job.group == group] for group in manifest.groups}
    # a pruned job was stopped on purpose
    left_out = [
        rs[0].job.group_label for rs in groups.values() if not all(r.status in ("finished", "pruned") for r in rs)
    ]
    if left_out and len(groups) > 1:
        listed = "; ".join(left_out[:5] + ["…"] * (len(left_out) > 5))
        output.say(
            f"not among those to choose from, for not all of their {manifest.repetitions} have finished: {listed}"
        )
    if chosen is None and len(groups) > 1:
        output.say(
            f"no configuration was chosen: none has finished with a finite {manifest.monitor} for all its "
            f"{manifest.repetitions}"
        )


def _say_failures(sweep: SweepDir, failed: Sequence[Result], jobs: int) -> None:
    if not failed:
        return
    for result in failed:
        error = result.summary.error or "never started"
        output.warn(f"{result.job.label}: {result.status}: {error}\n  {result.run.log}")
    stopped = sum(result.status == "failed" for result in failed)
    how = f"dlrun resume {sweep.id}" + (" --retry-failed" if stopped else "")
    damaged = sum(result.status == "damaged" for result in failed)
    first = "put back or delete the damaged files; then " if damaged else ""
    output.warn(f"{len(failed)} of {counted(jobs, 'job')} did not finish; {first}`{how}` runs them again")


def _report(runner: SweepRunner) -> Path | None:
    # a report that fails is a warning, never a failed sweep
    sweep, settings = runner.store.sweep, [job.config.get("sweep", {}) for job in runner.store.manifest.jobs]
    try:
        place = write(sweep, figures=all(each.get("figures", True) for each in settings))
    except Exception as error:
        output.warn(f"The report could not be made: {type(error).__name__}: {error}. `dlrun report {sweep.id}`")
        return None
    return place


def _closing(sweep: SweepDir) -> str:
    # nothing that is only shown may fail a finished sweep
    try:
        return terminal_text(sweep)
    except Exception as error:
        return f"{sweep.path}  ({type(error).__name__}: {error})"


def _wait(runner: SweepRunner) -> None:
    seconds = max((job.config["tracking"]["wait"] for job in runner.store.manifest.jobs), default=0.0)
    if runner.uploader is None or not seconds:
        return
    output.live(f"  sending to {runner.uploader.destination} …")
    if runner.uploader.wait(seconds):
        output.say(f"  {tracking.link(runner.store.sweep)}")
    else:
        for line in runner.uploader.describe_rest():
            output.say(f"  {line}")
