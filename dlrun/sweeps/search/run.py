"""Starts a search, continues it by the same command, or resumes it from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from omegaconf import DictConfig

from dlrun.config import trust
from dlrun.errors import ConfigError
from dlrun.storage.jobs.job import Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.sweep_summary import SearchCounts
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.search_history import SearchHistory
from dlrun.sweeps.finish import finish
from dlrun.sweeps.hydra_task import Launcher, SweepTask, exit_code, resumed_runner
from dlrun.sweeps.jobs.builder import JobBuilder
from dlrun.sweeps.jobs.composed import ComposedJob
from dlrun.sweeps.jobs.expand import Expansion
from dlrun.sweeps.jobs.reuse import other_sweeps, reuse
from dlrun.sweeps.location import SweepLocation, create, say_if_over
from dlrun.sweeps.runner import SweepRunner, sweep_runner
from dlrun.sweeps.search import bases, definition, settings, space
from dlrun.sweeps.search.definition import SearchDefinition
from dlrun.sweeps.search.search import Search
from dlrun.sweeps.search.trials import Trials
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output
from dlrun.terminal.format import counted


def start_or_continue(task: SweepTask, launcher: Launcher, given: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Start a search, or continue it.

    `given` are the sweeper's keys. The space is that of their `params` and of `arguments`. Raises `UserError` for a
    mistake, before any trial.
    """
    chosen = settings.read(given)
    loader = launcher.hydra_context.config_loader
    params = [f"{key}={value}" for key, value in (given.get("params") or {}).items()]
    spanned = space.read([*params, *arguments], loader)
    settings.check(chosen, spanned)
    sweep = task.location.sweep
    if task.location.resumed:
        search = definition.read(sweep).with_trials(chosen.n_trials)
        if not _say_if_over(sweep, search):
            trust.grant_environment(launcher.config)
            runner = task.enter(resumed_runner(sweep))
            search.write(sweep)  # n_trials may be larger now
            _run(runner, search, JobBuilder())
        return
    builder = JobBuilder()
    spanned, composed, left_out = bases.compose(spanned, Expansion(loader, launcher.config), loader)
    settings.check(chosen, spanned)  # again: it has other numbers now
    for line in left_out:
        output.say(line)
    search = SearchDefinition(spanned, chosen, composed, fresh=task.location.fresh)
    _check_probes(builder, search)
    manifest = _create(task.location, search, builder, launcher.config)
    runner = task.enter(sweep_runner(SweepStore(sweep, manifest), launcher.config.hydra))
    output.say(f"{manifest.name}: a search with {chosen.sampler}, {counted(search.total, 'trial')}\n  {sweep.path}")
    _run(runner, search, builder)


def resume(sweep: SweepDir, *, retry_failed: bool = False) -> int:
    """Resume a search; return the exit code.

    With `retry_failed` failed jobs run again, for the report: the search itself has gone on from their failure.
    """
    search = definition.read(sweep)
    settings.check(search.settings, search.space)
    if _say_if_over(sweep, search, retry_failed=retry_failed):
        return exit_code(sweep)
    with resumed_runner(sweep, retry_failed=retry_failed) as runner:
        if retry_failed:
            again = [result.job for result in runner.store.results() if result.status == "failed"]
            runner.run(again, count=len(again))
        _run(runner, search, JobBuilder())
        return finish(runner)


def _check_probes(builder: JobBuilder, search: SearchDefinition) -> None:
    """Check a few jobs; raises `UserError` with all mistakes."""
    probes = [
        ComposedJob(n, overrides, search.bases.config(overrides))
        for n, overrides in enumerate(dict.fromkeys(search.probes()))
    ]
    builder.jobs(probes)
    if builder.unvalidated:
        raise ConfigError(
            "A search chooses by validation values, and without a validation split it has none: give "
            "dataset.validation_size. The test split is no objective, whatever evaluation.test is."
        )
    if not builder.rule.monitor.startswith("val/"):
        raise ConfigError(f"evaluation.monitor={builder.rule.monitor}: a search goes by a validation metric (val/…).")


def _create(location: SweepLocation, search: SearchDefinition, builder: JobBuilder, master: DictConfig) -> Manifest:
    """Make the sweep's folder with its first trial."""
    sweep = location.sweep
    sweep.path.mkdir(parents=True, exist_ok=True)
    try:
        search.write(sweep)
        trial = _trials(sweep, search, builder.rule.higher_is_better).ask()
        overrides = search.space.overrides(trial.params)[0]
        jobs = builder.jobs([ComposedJob(0, overrides, search.bases.config(overrides))])
        manifest = create(location, master=master, jobs=jobs, builder=builder)
    except BaseException:
        # leave nothing of a search that could not begin
        if not sweep.manifest.exists():  # only these, for a given folder may hold other files
            for name in (definition.FILE, definition.TRIALS):
                (sweep.path / name).unlink(missing_ok=True)
        raise
    manifest = replace(manifest, study=manifest.study or _history(manifest))
    manifest.write(sweep)
    return manifest


def _history(manifest: Manifest) -> dict[str, Any]:
    # the study of a search that has none: its report shows the history
    target = f"{SearchHistory.__module__}.{SearchHistory.__qualname__}"
    return {"_target_": target, "monitor": manifest.monitor, "higher_is_better": manifest.higher_is_better}


def _run(runner: SweepRunner, search: SearchDefinition, builder: JobBuilder) -> None:
    trials = _trials(runner.store.sweep, search, runner.store.manifest.higher_is_better)
    make_job = _job_maker(runner, search, builder, trials)
    # a search that was made longer lacks trials from here on
    _write_counts(runner.store.sweep, search, trials)
    try:
        Search(runner, trials, search.space, total=search.total, make_job=make_job).run()
    finally:
        runner.store.fold()
        counts = _write_counts(runner.store.sweep, search, trials)
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "waiting")
        output.say(f"{len(trials)} of {counted(search.total, 'trial')}: {told}")


def _write_counts(sweep: SweepDir, search: SearchDefinition, trials: Trials) -> dict[str, int]:
    counts = trials.counts()
    with sweep.edit_summary() as summary:
        known: SearchCounts = {"sampler": search.settings.sampler, "trials": len(trials), "total": search.total}
        summary.search = cast("SearchCounts", {**known, **counts})
    return counts


def _job_maker(
    runner: SweepRunner, search: SearchDefinition, builder: JobBuilder, trials: Trials
) -> Callable[[tuple[str, ...]], Job]:
    # read at the first job, and for all
    others: list[tuple[SweepDir, Manifest]] | None = None

    def make_job(overrides: tuple[str, ...]) -> Job:
        nonlocal others
        # as it goes: a search that is killed lacks the other trials
        _write_counts(runner.store.sweep, search, trials)
        number = len(runner.store.manifest.jobs)
        (job,) = builder.jobs([ComposedJob(number, overrides, search.bases.config(overrides))])
        if not search.fresh:
            if others is None:
                others = list(other_sweeps(runner.store.sweep))
            reuse(runner.store.sweep, [job], others)
        return job

    return make_job


def _trials(sweep: SweepDir, search: SearchDefinition, higher_is_better: bool) -> Trials:
    return Trials(definition.trials_file(sweep), search.space, search.settings, higher_is_better=higher_is_better)


def _say_if_over(sweep: SweepDir, search: SearchDefinition, *, retry_failed: bool = False) -> bool:
    counts = sweep.summary().search
    if counts.get("running") or counts.get("trials", 0) < search.total:
        return False
    return say_if_over(sweep, retry_failed=retry_failed)
