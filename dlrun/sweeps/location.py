"""Where a sweep lies: in a new folder, or in that of an earlier sweep which it resumes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dlrun.config import hydra_targets, trust
from dlrun.config.check import check_config
from dlrun.errors import ConfigError, DamagedFile, UserError
from dlrun.storage import run_config
from dlrun.storage.files import yaml_text
from dlrun.storage.files.links import check_files
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.jobs.job import Job
from dlrun.storage.machine import command_line
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.results import results
from dlrun.storage.sources import NO_MODULES, targets, user_modules
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import decision
from dlrun.sweeps.jobs.builder import REMARKS, JobBuilder, rebuild_jobs
from dlrun.sweeps.jobs.definition import check_same, define, differences, digest, earlier_sweep, mismatch
from dlrun.sweeps.jobs.reuse import other_sweeps, reuse
from dlrun.terminal import output
from dlrun.terminal.format import counted

MULTIRUN = "multirun.yaml"
"""The sweep's composed configuration with Hydra's part, under Hydra's own name for it."""


@dataclass(frozen=True)
class SweepLocation:
    """A sweep's folder and definition.

    If `resumed` it has a manifest; if `fresh` it reuses no runs of other sweeps.
    """

    sweep: SweepDir
    definition: dict[str, Any]
    resumed: bool
    fresh: bool = False


def locate(master: DictConfig, jobs: Sequence[Sequence[str]] | None = None) -> SweepLocation:
    """Find the folder of a composed sweep.

    `jobs` are as in `define`. Raises `UserError` if hydra.sweep.dir holds another sweep, or runs.
    """
    definition = define(master, jobs)
    fresh = bool(OmegaConf.select(master, "sweep.fresh"))
    folder = SweepDir(Path(str(master.hydra.sweep.dir)).absolute())
    given = [str(override).partition("=")[0].lstrip("+") for override in master.hydra.overrides.hydra]
    if "hydra.sweep.subdir" in given:
        raise ConfigError("hydra.sweep.subdir has no meaning here: a job lies in the folder of its number.")
    if folder.manifest.exists():
        check_same(folder, definition)
        if fresh:
            raise UserError(f"{folder.path} holds this sweep already; sweep.fresh=true needs a folder of its own.")
        return SweepLocation(folder, definition, resumed=True)
    # a given folder counts: no earlier sweep elsewhere is resumed instead
    if "hydra.sweep.dir" in given:
        if any(folder.path.glob("*/.hydra")):
            raise UserError(f"{folder.path} holds runs, and is the folder of no sweep of dlrun. Give another one.")
        return SweepLocation(folder, definition, resumed=False, fresh=fresh)
    earlier = None if fresh else earlier_sweep(definition)
    if earlier is not None and _modules_changed(earlier):
        output.say(f"your modules are not those of sweep {earlier.id}: this is another one")
        earlier = None
    return SweepLocation(earlier or folder, definition, resumed=earlier is not None, fresh=fresh)


def _modules_changed(sweep: SweepDir) -> bool:
    """Are modules of the user's behind a sweep's jobs, or packages, others than they were?"""
    asked: set[tuple[str, ...]] = set()
    for job in read(sweep).jobs:
        parts = tuple(targets(job.config))
        if parts in asked or "modules" not in job.parts:
            continue
        asked.add(parts)
        try:
            check_config(OmegaConf.create(job.config | {"trusted": trust.trusted_names()}))  # imports them
        except UserError:
            continue  # said when the jobs are built
        if user_modules(job.config) != job.parts["modules"]:
            return True
    return False


def create(location: SweepLocation, *, master: DictConfig, jobs: Sequence[Job], builder: JobBuilder) -> Manifest:
    """Make a sweep's folder, and reuse other sweeps' runs."""
    if not jobs:
        raise ConfigError("The sweep is empty: one of its keys is given no value at all.")
    sweep, definition, rule = location.sweep, location.definition, builder.rule
    jobs = [replace(job, config=run_config.placed(job.config, sweep.job(job.n).path)) for job in jobs]
    manifest = Manifest(
        name=str(jobs[0].config["name"] if definition["name"] is None else definition["name"]),
        definition=digest(definition),
        asked=definition,
        command=command_line(),
        created=time.time(),
        monitor=rule.monitor,
        higher_is_better=rule.higher_is_better,
        test=rule.test,
        study=jobs[0].config.get("study"),
        jobs=tuple(jobs),
        basis=builder.basis,
    )
    for remark in [*builder.remarks][:REMARKS]:
        output.say(remark)
    sweep.path.mkdir(parents=True, exist_ok=True)
    write_atomically(sweep.path / MULTIRUN, OmegaConf.to_yaml(master).encode())
    manifest.write(sweep)
    count = 0 if location.fresh else reuse(sweep, jobs, other_sweeps(sweep))
    if count:
        verb = "is" if count == 1 else "are"
        output.say(
            f"{count} of {counted(len(jobs), 'job')} {verb} reused: other sweeps have finished the same{_unknown(jobs)}"
        )
    return manifest


def _unknown(jobs: Sequence[Job]) -> str:
    """What reuse cannot know of parts of the user's own."""
    if all(job.parts.get("modules") == NO_MODULES for job in jobs):
        return ""
    return (
        "\n  your modules and the packages of parts are the same; a file that they read by themselves may be another: "
        "sweep.fresh=true runs all anew"
    )


def saved_hydra(sweep: SweepDir) -> DictConfig:
    """Hydra's part of a sweep's saved configuration."""
    from hydra.conf import HydraConf

    try:
        text = (sweep.path / MULTIRUN).read_text(encoding="utf-8")
        yaml_text.check_aliases(text)
        saved = OmegaConf.create(text).hydra
        kept = {name: value for name, value in saved.items_ex(resolve=False) if name in hydra_targets.KEPT}
    except (OSError, AttributeError, AssertionError, ValueError, RecursionError, YAMLError, OmegaConfBaseException):
        advice = f"Give the command again, with hydra.sweep.dir={sweep.path}."
        raise DamagedFile(sweep.path / MULTIRUN, "it holds no configuration of a sweep", advice) from None
    whole = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    # Hydra's own files have keys that its dataclass lacks
    OmegaConf.set_struct(whole.hydra, False)
    whole.hydra = OmegaConf.merge(whole.hydra, kept)
    assert isinstance(whole.hydra, DictConfig)
    # who resumes a sweep waits for it
    if "detach" in whole.hydra.launcher:
        whole.hydra.launcher.detach = False
    # the folder may come from somebody else: its callbacks and log handlers are called only if this user allows them
    hydra_targets.check(whole.hydra, trusted=trust.trusted_names(), foreign="the saved sweep", home=sweep.path)
    return whole.hydra


def check_unchanged(sweep: SweepDir, manifest: Manifest) -> None:
    """Raise `UserError` if a job's identity has changed, or the sweep has links out of its folder."""
    check_files(sweep.path)
    now, builder = rebuild_jobs(manifest.jobs)
    # an older dlrun hashed its sources in another way, and kept no parts of the hash
    if not all(job.parts for job in manifest.jobs):
        _check_older(sweep, manifest, builder)
        return
    changed = [then for then, job in zip(manifest.jobs, now, strict=True) if then.identity != job.identity]
    if changed:
        lines = differences(manifest.basis, builder.basis)
        raise mismatch(
            sweep, lines, why=f"{len(changed)} of {counted(len(manifest.jobs), 'job')} would not be what they were:"
        )


def _check_older(sweep: SweepDir, manifest: Manifest, builder: JobBuilder) -> None:
    """Compare data, the user's modules, device and torch."""
    there, here = ({k: v for k, v in basis.items() if k != "sources"} for basis in (manifest.basis, builder.basis))
    if lines := differences(there, here):
        raise mismatch(sweep, lines, why="its jobs would not be what they were:")
    output.say("  begun by an older dlrun: sources are not compared; data, your modules, device and torch are the same")


def announce_resumed(sweep: SweepDir, manifest: Manifest, *, retry_failed: bool) -> None:
    """Print the progress of a resumed sweep."""
    statuses = [result.status for result in results(sweep, manifest)]
    finished, failed = statuses.count("finished"), statuses.count("failed")
    output.say(f"continuing {sweep.path}: {finished} of {len(statuses)} finished")
    if failed and not retry_failed:
        output.say(f"  {failed} failed and stay so; `dlrun resume {sweep.id} --retry-failed` runs them again")


def say_if_over(sweep: SweepDir, *, retry_failed: bool = False) -> bool:
    """Print a line if all jobs have ended and the selected ones are tested; False otherwise."""
    if sweep.alive() or sweep.status() not in ("finished", "failed"):
        return False
    statuses = [result.status for result in results(sweep)]
    failed = statuses.count("failed")
    if (failed and retry_failed) or {"missing", "killed", "running", "damaged"} & {*statuses} or decision.is_due(sweep):
        return False
    who = "the only job has" if len(statuses) == 1 else f"all {len(statuses)} jobs have"
    lines = [f"{who} ended: {sweep.report}{_unknown(read(sweep).jobs)}"]
    if failed:
        lines.append(f"  `dlrun resume {sweep.id} --retry-failed` runs the {failed} that failed again")
    anew = " sweep.fresh=true"
    lines.append(f"  to run all of them anew: {read(sweep).command.removesuffix(anew)}{anew}")
    output.say("\n".join(lines))
    return True
