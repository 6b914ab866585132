"""Where a sweep is: an earlier one of the same definition that is continued, or a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.config import hydra_targets, trust
from dlrun.errors import ConfigError, UserError
from dlrun.storage.machine import command_line
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.results import results
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.definition import asked, check_same, definition, differences, earlier, refuse
from dlrun.sweeps.jobs import JobBuilder, rebuild_jobs
from dlrun.sweeps.reuse import other_sweeps, reuse
from dlrun.terminal import output

MULTIRUN = "multirun.yaml"
"""The sweep's composed configuration with Hydra's part, as Hydra itself keeps it."""


@dataclass(frozen=True)
class SweepLocation:
    """A sweep's folder, what was asked for, and whether it is an earlier sweep that is continued."""

    sweep: SweepDir
    asked: dict[str, Any]
    resumed: bool
    fresh: bool = False


def locate(master: DictConfig, jobs: Sequence[Sequence[str]] | None = None) -> SweepLocation:
    """Return where a composed sweep is to lie.

    Raises `UserError` if the folder that was given is of another sweep.
    """
    what = asked(master, jobs)
    fresh = bool(OmegaConf.select(master, "sweep.fresh"))
    folder = SweepDir(Path(str(master.hydra.sweep.dir)).absolute())
    given = [str(override).partition("=")[0].lstrip("+") for override in master.hydra.overrides.hydra]
    if "hydra.sweep.subdir" in given:
        raise ConfigError("hydra.sweep.subdir has no meaning here: a job lies in the folder of its number.")
    if folder.manifest.exists():
        check_same(folder, what)
        if fresh:
            raise UserError(f"{folder.path} holds this sweep already; sweep.fresh=true needs a folder of its own.")
        return SweepLocation(folder, what, resumed=True)
    if "hydra.sweep.dir" in given:
        if any(folder.path.glob("*/.hydra")):
            raise UserError(f"{folder.path} holds runs, and is the folder of no sweep of dlrun. Give another one.")
        return SweepLocation(folder, what, resumed=False, fresh=fresh)
    before = None if fresh else earlier(definition(what))
    return SweepLocation(before or folder, what, resumed=before is not None, fresh=fresh)


def create(place: SweepLocation, *, master: DictConfig, jobs: Sequence[Job], builder: JobBuilder) -> Manifest:
    """Make a sweep's folder, with its manifest; return that.

    Jobs that another sweep has finished are not run again, and a line says so.
    """
    if not jobs:
        raise ConfigError("The sweep is empty: one of its keys is given no value at all.")
    rule = builder.rule
    study = jobs[0].config.get("study")
    what = Manifest(
        name=str(jobs[0].config["name"] if place.asked["name"] is None else place.asked["name"]),
        definition=definition(place.asked),
        asked=place.asked,
        command=command_line(),
        created=time.time(),
        monitor=rule.monitor,
        higher_is_better=rule.higher_is_better,
        test=rule.test,
        study=study,
        jobs=tuple(jobs),
        basis=builder.basis,
    )
    place.sweep.path.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(master, place.sweep.path / MULTIRUN)
    what.write(place.sweep)
    if not place.fresh:
        _reuse(place.sweep, what)
    return what


def hydra_of(sweep: SweepDir) -> DictConfig:
    """Return Hydra's part of the configuration that a sweep was begun with."""
    from hydra.conf import HydraConf

    saved = OmegaConf.load(sweep.path / MULTIRUN)
    whole = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    # Hydra's own files have keys that its dataclass lacks
    OmegaConf.set_struct(whole.hydra, False)
    whole.hydra = OmegaConf.merge(whole.hydra, saved.hydra)
    assert isinstance(whole.hydra, DictConfig)
    # the folder may come from somebody else: its callbacks and log handlers are called only if this user allows them
    hydra_targets.check(whole.hydra, trusted=trust.trusted_names())
    return whole.hydra


def check_unchanged(sweep: SweepDir, what: Manifest) -> JobBuilder:
    """Return what has defined the jobs again.

    Raises `UserError`, with the difference, if one would not be now what it was when the sweep began.
    """
    now, builder = rebuild_jobs(what.jobs)
    changed = [then for then, job in zip(what.jobs, now, strict=True) if then.identity != job.identity]
    if changed:
        lines = differences(what.basis, builder.basis)
        raise refuse(sweep, lines, why=f"{len(changed)} of {len(what.jobs)} jobs would not be what they were:")
    return builder


def tell_continued(sweep: SweepDir, what: Manifest, *, retry_failed: bool) -> None:
    """Say how far the sweep is that is continued."""
    statuses = [result.status for result in results(sweep, what)]
    finished, failed = statuses.count("finished"), statuses.count("failed")
    output.say(f"continuing {sweep.path}: {finished} of {len(statuses)} finished")
    if failed and not retry_failed:
        output.say(f"  {failed} failed and stay so; `dlrun resume {sweep.id} --retry-failed` runs them again")


def is_over(sweep: SweepDir, *, retry_failed: bool = False) -> bool:
    """Return whether there is nothing left to do, and say so with what can be done instead."""
    if sweep.alive() or sweep.status() not in ("finished", "failed"):
        return False
    statuses = [result.status for result in results(sweep)]
    failed = statuses.count("failed")
    if (failed and retry_failed) or {"missing", "killed", "running"} & {*statuses}:
        return False
    how = f"; `dlrun resume {sweep.id} --retry-failed` runs the {failed} that failed again" if failed else ""
    output.say(f"all {len(statuses)} jobs have ended: {sweep.report}\n  sweep.fresh=true runs all of them anew{how}")
    return True


def _reuse(sweep: SweepDir, what: Manifest) -> None:
    count = reuse(sweep, what.jobs, other_sweeps(sweep))
    if count:
        output.say(f"{count} of {len(what.jobs)} jobs are reused: other sweeps have finished the same")
