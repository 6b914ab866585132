"""One job of a sweep, in the process that the pool gave it: started, continued, or tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun import confdir, device
from dlrun.build import Built, build
from dlrun.journal import Journal
from dlrun.reload import rebuild, select
from dlrun.run import read_test, run
from dlrun.rundir import RunDir


def start(folder: RunDir, config: dict[str, Any], hydra: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Train a job for the first time, as Hydra runs one (its callbacks, its environment), and return its summary."""
    setup_globals()
    version.setbase("1.3")  # else the current directory would become the job's
    confdir.find_own_modules()
    whole = OmegaConf.create(config)
    whole.hydra = hydra
    OmegaConf.set_struct(whole, True)
    with read_write(whole.hydra), open_dict(whole.hydra):
        whole.hydra.sweep.dir, whole.hydra.sweep.subdir = str(folder.path.parent), folder.path.name
        whole.hydra.job.num = int(folder.path.name)
        whole.hydra.job.id = folder.path.name
        whole.hydra.overrides.task = list(overrides)
    HydraConfig.instance().set_config(whole)
    done = run_job(
        task_function=lambda cfg: run(sealed(build(cfg)), folder),
        config=whole,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(config_loader=None, callbacks=Callbacks(whole)),  # type: ignore[arg-type]
    )
    if done.status == JobStatus.FAILED:
        raise done._return_value
    summary: dict[str, Any] = done.return_value
    return summary


def go_on(folder: RunDir) -> dict[str, Any]:
    """Go on with a job that was stopped, from its last checkpoint, and return its summary."""
    confdir.find_own_modules()
    return run(sealed(rebuild(folder)), folder, resumed=True)


def test(folder: RunDir) -> dict[str, float]:
    """Read the test split with the selected weights, once; return the metrics, which the summary gets too."""
    confdir.find_own_modules()
    built = rebuild(folder)
    if built.data.test is None:
        return {}
    select(built, folder)
    device.apply(built.execution)
    journal = Journal(folder.journal)
    try:
        metrics = read_test(built, folder, journal)[0]
    finally:
        journal.close()
    folder.update(lambda summary: summary.setdefault("metrics", {}).update(metrics))
    return metrics


def sealed(built: Built) -> Built:
    """Return a run as a job of a sweep: it waits for no uploader, and leaves the test split sealed.

    Its number would be one of many to choose from; a study whose subject is the test curve says so,
    with `evaluation.test: every`.
    """
    kept = "never" if built.evaluation.test == "final" else built.evaluation.test
    return replace(built, evaluation=replace(built.evaluation, test=kept), tracking=replace(built.tracking, wait=0.0))
