"""A search is begun, continued by the same command, or resumed from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from dlrun.errors import ConfigError
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.search_history import SearchHistory
from dlrun.sweeps import location
from dlrun.sweeps.expand import Expansion
from dlrun.sweeps.finish import finish
from dlrun.sweeps.hydra_task import Launcher, SweepTask, resumed_runner
from dlrun.sweeps.jobs import ComposedJob, JobBuilder
from dlrun.sweeps.location import SweepLocation
from dlrun.sweeps.reuse import other_sweeps, reuse
from dlrun.sweeps.runner import SweepRunner, sweep_runner
from dlrun.sweeps.search import bases, definition, settings, space
from dlrun.sweeps.search.definition import Plan
from dlrun.sweeps.search.search import Search
from dlrun.sweeps.search.trials import Trials
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output


def conduct(task: SweepTask, launcher: Launcher, given: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Search what `arguments` and the sweeper's `params` span; `given` is what the sweeper was given.

    Raises `UserError` for whatever is wrong before any trial is asked for.
    """
    chosen = settings.settings(given)
    loader = launcher.hydra_context.config_loader
    spanned = space.read(
        [*(f"{key}={value}" for key, value in (given.get("params") or {}).items()), *arguments], loader
    )
    settings.check(chosen, spanned)
    sweep = task.location.sweep
    if task.location.resumed:
        decided = definition.read(sweep).longer(chosen.n_trials)
        if not _is_over(sweep, decided):
            runner = task.enter(resumed_runner(sweep))
            decided.write(sweep)
            _search(runner, decided, JobBuilder())
        return
    builder = JobBuilder()
    decided = _decided(launcher.config, loader, spanned, chosen, fresh=task.location.fresh)
    _probed(builder, decided, launcher.config, loader)
    what = _begun(task.location, decided, builder, launcher.config)
    runner = task.enter(sweep_runner(SweepStore(sweep, what), launcher.config.hydra))
    output.say(f"{what.name}: a search with {chosen.sampler}, {decided.total} trials\n  {sweep.path}")
    _search(runner, decided, builder)


def resume(sweep: SweepDir, *, retry_failed: bool = False) -> int:
    """Go on with a search from its folder alone; return the exit code.

    Jobs that failed are run again where that is asked for; the search has gone on from their failure.
    """
    decided = definition.read(sweep)
    settings.check(decided.settings, decided.space)
    if _is_over(sweep, decided, retry_failed=retry_failed):
        return 0
    with resumed_runner(sweep) as runner:
        if retry_failed:
            again = [result.job for result in runner.store.results() if result.status == "failed"]
            runner.run(again, count=len(again))
        _search(runner, decided, JobBuilder())
        return finish(runner)


def _decided(
    master: DictConfig, loader: ConfigLoader, spanned: space.Space, chosen: settings.Settings, *, fresh: bool
) -> Plan:
    composed = bases.composed(spanned, Expansion(loader, master), loader)
    return Plan(spanned, chosen, composed, fresh)


def _probed(builder: JobBuilder, decided: Plan, master: DictConfig, loader: ConfigLoader) -> None:
    """Check jobs at the ends of the space; raises `UserError` with all that is wrong with any of them."""
    expansion = Expansion(loader, master)
    probes = [
        ComposedJob(n, overrides, expansion.config([*decided.space.fixed, *overrides], n))
        for n, overrides in enumerate(decided.probes())
    ]
    builder.jobs(probes)
    if not builder.rule.monitor.startswith("val/"):
        raise ConfigError(f"evaluation.monitor={builder.rule.monitor}: a search goes by a validation metric (val/…).")


def _begun(place: SweepLocation, decided: Plan, builder: JobBuilder, master: DictConfig) -> Manifest:
    """Make the sweep's folder with the first trial in it, or leave nothing behind."""
    sweep = place.sweep
    sweep.path.mkdir(parents=True, exist_ok=True)
    try:
        decided.write(sweep)
        trial = _trials(sweep, decided, builder.rule.higher_is_better).ask()
        overrides = decided.space.overrides(trial.params)[0]
        jobs = builder.jobs([ComposedJob(0, overrides, decided.bases.config(overrides))])
        what = location.create(place, master=master, jobs=jobs, builder=builder)
    except BaseException:
        if not sweep.manifest.exists():  # the folder may be one that was given, with other things in it
            for name in (definition.FILE, definition.TRIALS):
                (sweep.path / name).unlink(missing_ok=True)
        raise
    what = replace(what, study=what.study or _study(what))
    what.write(sweep)
    return what


def _study(what: Manifest) -> dict[str, Any]:
    """Return the study of a search that is no study's: its report gets the history."""
    target = f"{SearchHistory.__module__}.{SearchHistory.__qualname__}"
    return {"_target_": target, "monitor": what.monitor, "higher_is_better": what.higher_is_better}


def _search(runner: SweepRunner, decided: Plan, builder: JobBuilder) -> None:
    trials = _trials(runner.store.sweep, decided, runner.store.manifest.higher_is_better)
    make = _maker(runner, decided, builder)
    try:
        Search(runner, trials, decided.space, total=decided.total, make=make).run()
    finally:
        counts = trials.counts()
        with runner.store.sweep.edit_summary() as summary:
            summary.search = {"sampler": decided.settings.sampler, "trials": len(trials), **counts}
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "waiting")
        output.say(f"{len(trials)} of {decided.total} trials: {told}")


def _maker(runner: SweepRunner, decided: Plan, builder: JobBuilder) -> Callable[[tuple[str, ...]], Job]:
    """Return what makes a job of overrides: checked, numbered, and reused where another sweep has finished it."""
    others: list[tuple[SweepDir, Manifest]] | None = None

    def make(overrides: tuple[str, ...]) -> Job:
        nonlocal others
        number = len(runner.store.manifest.jobs)
        (job,) = builder.jobs([ComposedJob(number, overrides, decided.bases.config(overrides))])
        if not decided.fresh:
            if others is None:
                others = list(other_sweeps(runner.store.sweep))
            reuse(runner.store.sweep, [job], others)
        return job

    return make


def _trials(sweep: SweepDir, decided: Plan, higher_is_better: bool) -> Trials:
    return Trials(definition.trials_of(sweep), decided.space, decided.settings, higher_is_better=higher_is_better)


def _is_over(sweep: SweepDir, decided: Plan, *, retry_failed: bool = False) -> bool:
    """Return whether all trials have been run and told, and say what can be done instead."""
    counts = sweep.summary().search
    if counts.get("running") or counts.get("trials", 0) < decided.total:
        return False
    return location.is_over(sweep, retry_failed=retry_failed)
