"""One job of a sweep, in the process that the pool gave it: started, continued, or tested."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun.config import paths
from dlrun.execution import device
from dlrun.runs.build import Built, assemble, build
from dlrun.runs.parts import make_dataset
from dlrun.runs.reload import rebuild, select
from dlrun.runs.run import run
from dlrun.runs.scoring import test_once
from dlrun.storage.files import write_atomically
from dlrun.storage.machine import Machine
from dlrun.storage.rundir import RunDir
from dlrun.types import Data

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""How a library's record is logged: as conf/hydra/job_logging/dlrun.yaml says."""

Load = Callable[[dict[str, Any]], Data]
"""Loads the data set of a checked configuration."""


@dataclass(frozen=True)
class Known:
    """What the launcher has found out for all jobs, and what their summaries are to say of it."""

    machine: Machine
    noted: Mapping[str, Any] = field(default_factory=dict)


def start(
    folder: RunDir,
    config: dict[str, Any],
    overrides: Sequence[str],
    *,
    hydra: DictConfig | None,
    known: Known,
    load: Load = make_dataset,
) -> dict[str, Any]:
    """Train a job for the first time and return its summary; with Hydra's part, as Hydra runs a job.

    Without it (see `asks_hydra`) the folder is the same but for Hydra's own settings, which are the
    sweep's, at a fraction of what Hydra's copies of the configuration cost; it was checked with its sweep.
    """
    paths.enable_user_modules()
    if hydra is not None:
        return _as_hydra_does(folder, config, overrides, hydra, known)
    write(folder, config, overrides)
    handler = logging.FileHandler(folder.log)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    return run(
        seal(assemble(config, data=load(config))),
        folder,
        machine=known.machine,
        noted=known.noted,
    ).to_dict()


def asks_hydra(hydra: DictConfig) -> bool:
    """Return whether a sweep's jobs want something of Hydra itself: callbacks, an environment, their own logging."""
    job = hydra.job
    own = hydra.runtime.choices.get("hydra/job_logging") == "dlrun" and not any(
        str(override).lstrip("+~").startswith("hydra.job_logging") for override in hydra.overrides.hydra
    )
    return bool(hydra.callbacks or job.env_set or job.chdir or hydra.output_subdir != ".hydra" or not own)


def go_on(folder: RunDir, known: Known, *, load: Load = make_dataset) -> dict[str, Any]:
    """Go on with a job that was stopped, from its last checkpoint, and return its summary."""
    paths.enable_user_modules()
    return run(
        seal(rebuild(folder, load=load)),
        folder,
        resumed=True,
        machine=known.machine,
        noted=known.noted,
    ).to_dict()


def test(folder: RunDir, *, load: Load = make_dataset) -> dict[str, float]:
    """Read the test split with the selected weights, once; return the metrics, which the summary gets too."""
    paths.enable_user_modules()
    built = rebuild(folder, load=load)
    if built.data.test is None:
        return {}
    select(built, folder)
    device.apply(built.execution)
    return test_once(built, folder)


def seal(built: Built) -> Built:
    """Return a run as a job of a sweep: it waits for no uploader, and leaves the test split sealed.

    Its number would be one of many to choose from; a study whose subject is the test curve says so,
    with `evaluation.test: every`.
    """
    kept = "never" if built.evaluation.test == "final" else built.evaluation.test
    return replace(built, evaluation=replace(built.evaluation, test=kept), tracking=replace(built.tracking, wait=0.0))


def write(folder: RunDir, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write what the run is into its folder, as Hydra does."""
    folder.config.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(_part({name: value}) for name, value in config.items())
    for path, content in ((folder.config, text), (folder.config.with_name("overrides.yaml"), _dumped([*overrides]))):
        write_atomically(path, content.encode())


def _part(content: dict[str, Any]) -> str:
    """Return a part of a configuration as YAML; most are those of the job before."""
    try:
        text = json.dumps(content)
        same = json.loads(text) == content
    except (TypeError, ValueError):  # a value, or a key, that JSON lacks
        same = False
    return _known_part(text) if same else _dumped(content)


@functools.lru_cache(maxsize=256)
def _known_part(text: str) -> str:
    return _dumped(json.loads(text))


def _dumped(content: Any) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def _as_hydra_does(
    folder: RunDir, config: dict[str, Any], overrides: Sequence[str], hydra: DictConfig, known: Known
) -> dict[str, Any]:
    setup_globals()
    version.setbase("1.3")  # else the current directory would become the job's
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
        task_function=lambda cfg: run(seal(build(cfg)), folder, machine=known.machine, noted=known.noted).to_dict(),
        config=whole,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(config_loader=None, callbacks=Callbacks(whole)),  # type: ignore[arg-type]
    )
    if done.status == JobStatus.FAILED:
        raise done._return_value
    summary: dict[str, Any] = done.return_value
    return summary
