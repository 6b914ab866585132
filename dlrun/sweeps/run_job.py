"""One job of a sweep, in the process that runs it: started, resumed, or tested."""

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
from dlrun.runs.reload.rebuild import rebuild, select
from dlrun.runs.run import run
from dlrun.runs.scoring import test_once
from dlrun.storage import run_config
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.machine import Machine
from dlrun.storage.rundir import RunDir
from dlrun.types import Data

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""The format of log records; conf/hydra/job_logging/dlrun.yaml has the same."""

Load = Callable[[dict[str, Any]], Data]
"""Loads the data set of a checked configuration: `runs.parts.make_dataset`, or a cache of it."""


@dataclass(frozen=True)
class JobContext:
    """The machine, and `extra` values for a job's summary."""

    # inspected once for all jobs
    machine: Machine
    extra: Mapping[str, Any] = field(default_factory=dict)


def go_on(
    folder: RunDir,
    config: dict[str, Any],
    overrides: Sequence[str],
    *,
    hydra: DictConfig | None,
    context: JobContext,
    load: Load = make_dataset,
) -> dict[str, Any]:
    """Resume a job, or start it, as `resume` and `start` do; returns its summary."""
    # a job killed before its first line is started again, not resumed
    if folder.config.exists() and folder.journal.exists():
        return resume(folder, context, load=load)
    return start(folder, config, overrides, hydra=hydra, context=context, load=load)


def start(
    folder: RunDir,
    config: dict[str, Any],
    overrides: Sequence[str],
    *,
    hydra: DictConfig | None,
    context: JobContext,
    load: Load = make_dataset,
) -> dict[str, Any]:
    """Train a job and return its summary.

    With `hydra`, Hydra's part of the configuration, it runs as under Hydra. Without, the folder lacks hydra.yaml,
    which is the sweep's.
    """
    paths.enable_user_modules()
    if hydra is not None:
        # slower, for Hydra copies the whole configuration several times
        return _as_hydra_does(folder, config, overrides, hydra, context)
    write(folder, config, overrides)
    handler = logging.FileHandler(folder.log)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    plain = run_config.read_values(config)
    return run(
        seal(assemble(plain, data=load(plain))),
        folder,
        machine=context.machine,
        extra=context.extra,
    ).to_dict()


def needs_hydra(hydra: DictConfig) -> bool:
    """True if jobs use Hydra's callbacks, environment, folders or logging."""
    job = hydra.job
    # dlrun's logging, with no key of it changed, is what `start` sets up without Hydra
    own = hydra.runtime.choices.get("hydra/job_logging") == "dlrun" and not any(
        str(override).lstrip("+~").startswith("hydra.job_logging") for override in hydra.overrides.hydra
    )
    return bool(hydra.callbacks or job.env_set or job.chdir or hydra.output_subdir != ".hydra" or not own)


def resume(folder: RunDir, context: JobContext, *, load: Load = make_dataset) -> dict[str, Any]:
    """Resume a job and return its summary."""
    paths.enable_user_modules()
    return run(
        seal(rebuild(folder, load=load)),
        folder,
        resumed=True,
        machine=context.machine,
        extra=context.extra,
    ).to_dict()


def test(folder: RunDir, *, reader: str | None = None, load: Load = make_dataset) -> dict[str, float]:
    """Test the selected weights, once.

    The metrics go to the summary too. Without a test split there are none. `reader` is as in `test_once`.
    """
    paths.enable_user_modules()
    built = rebuild(folder, load=load, watched=False)
    if built.data.test is None:
        return {}
    select(built, folder)
    device.apply(built.execution)
    return test_once(built, folder, reader=reader)


def seal(built: Built) -> Built:
    """Seal the test split of a sweep's run.

    `evaluation.test: every` unseals it, for studies of the test curve. Nor does the run wait for its upload.
    """
    # else the sweep would choose among test results
    test = "never" if built.evaluation.test == "final" else built.evaluation.test
    # the sweep waits for all uploads at its end
    return replace(built, evaluation=replace(built.evaluation, test=test), tracking=replace(built.tracking, wait=0.0))


def write(folder: RunDir, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write a job's configuration and overrides, as Hydra does."""
    folder.config.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(_dump_part({name: value}) for name, value in config.items())
    for path, content in ((folder.config, text), (folder.config.with_name("overrides.yaml"), _dump([*overrides]))):
        write_atomically(path, content.encode())


def _dump_part(content: dict[str, Any]) -> str:
    # most parts are those of the job before
    try:
        text = json.dumps(content)
        same = json.loads(text) == content
    except (TypeError, ValueError):  # a value, or a key, that JSON lacks
        same = False
    return _dump_json(text) if same else _dump(content)


@functools.lru_cache(maxsize=256)
def _dump_json(text: str) -> str:
    return _dump(json.loads(text))


def _dump(content: Any) -> str:
    # libyaml's, if PyYAML was built with it: much faster
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    options: Any = {"sort_keys": False, "allow_unicode": True, "default_flow_style": False}
    try:
        text: str = yaml.dump(content, Dumper=dumper, **options)
    except UnicodeEncodeError:  # a path that is no UTF-8, which only PyYAML's own escapes
        text = yaml.dump(content, Dumper=yaml.SafeDumper, **options)
    return text


def _as_hydra_does(
    folder: RunDir, config: dict[str, Any], overrides: Sequence[str], hydra: DictConfig, context: JobContext
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
        task_function=lambda cfg: run(seal(build(cfg)), folder, machine=context.machine, extra=context.extra).to_dict(),
        config=whole,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(config_loader=None, callbacks=Callbacks(whole)),  # type: ignore[arg-type]
    )
    if done.status == JobStatus.FAILED:
        raise done._return_value
    summary: dict[str, Any] = done.return_value
    return summary
