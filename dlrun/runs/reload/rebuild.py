"""A run rebuilt from its folder, with its data set: to resume it, or to test it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.config import trust
from dlrun.config.check import check_config
from dlrun.errors import MissingModule, UserError
from dlrun.runs.build import Built, assemble, identity
from dlrun.runs.parts import make_dataset
from dlrun.runs.weights import loading
from dlrun.storage import checkpoint, run_config
from dlrun.storage.files.links import check_files
from dlrun.storage.identity import Identity
from dlrun.storage.rundir import RunDir
from dlrun.types import Data


def rebuild(
    folder: RunDir,
    changed: DictConfig | None = None,
    *,
    load: Callable[[dict[str, Any]], Data] = make_dataset,
    watched: bool = True,
) -> Built:
    """Build a run from its folder, with initial weights.

    A `changed` configuration replaces the folder's; `load` makes the data set; one that is not to be trained is not
    `watched` and has no observers. Without CUDA, a run of it is built on
    this machine's best device. Raises `UserError` if the data set is not the one that the run was trained on, or may
    be another, or the folder has links out of it.
    """
    check_files(folder.path)
    summary, begun = folder.summary(), folder.last.exists()
    config = for_this_machine(run_config.load(folder) if changed is None else changed.copy(), folder, begun=begun)
    with naming_start(folder):
        plain = check_config(config if watched else unwatched(config))
    if not summary.data.get("fingerprint"):
        # nothing says which data it was trained on, and a vocabulary is written into the run's folder
        trust.check_files(plain["dataset"], of=f"The configuration of {folder.path}", home=folder.path)
    built = assemble(plain, data=load(plain), resumed_execution=summary.execution)
    if begun:
        initial = summary.initial_weights
        built = replace(built, initial_weights=initial)
        # resuming after an edit of the code makes no other run of it; a changed configuration does
        if changed is None and summary.identity:
            made = Identity(summary.identity, summary.identity_parts)
        else:
            made = identity(built.config, built.data, built.execution, initial, built.quantities)
        built = replace(built, identity=made)
    trained_on = summary.data.get("fingerprint", built.data.fingerprint)
    if trained_on != built.data.fingerprint:
        raise UserError(
            f"The data set {built.data.name} has changed since {folder.path} was trained: its fingerprint was "
            f"{trained_on[:12]}…, it is {built.data.fingerprint[:12]}…. Put the old files back, or train anew."
        )
    if summary.threads and summary.device == built.execution.device.type:
        # part of what a result depends on to the last bit
        built = replace(built, execution=replace(built.execution, threads=summary.threads))
    return built


@contextmanager
def naming_start(folder: RunDir) -> Iterator[None]:
    """Of a part whose module is not found, say where the run was begun."""
    try:
        yield
    except MissingModule as error:
        start = folder.summary().directory
        if start is None or Path(start) == Path.cwd():
            raise
        gone = "" if Path(start).is_dir() else ", which is not on this machine"
        raise MissingModule(f"{error} The run {folder.id} was begun in {start}{gone}: its modules lie there.") from None


def for_this_machine(config: DictConfig, folder: RunDir, *, begun: bool) -> DictConfig:
    trust.check_environment(config, of=f"The configuration of {folder.path}")
    run_config.locate_paths(config, folder.path)
    # a run of a GPU machine is looked at on a laptop
    if _device(config).startswith("cuda") and not torch.cuda.is_available():
        config.trainer.device = "auto"
    if begun:
        # it has weights of its own: those it started from may be gone by now
        config.init_from = None
    config.trusted = trust.trusted_names()
    return config


def unwatched(config: DictConfig) -> DictConfig:
    """A configuration without observers: they watch a training."""
    if config.get("observers"):
        config.observers = {}
    return config


def _device(config: DictConfig) -> str:
    # of a configuration that is still to be checked
    with suppress(OmegaConfBaseException):
        return str(OmegaConf.select(config, "trainer.device"))
    return ""


def select(built: Built, folder: RunDir) -> int:
    """Load the selected weights into the model; returns their step.

    Without a best validation these are the last weights.
    """
    weights = loading.selected(folder)
    loading.put(built.training.objective.model, weights.model, where=str(folder.path))
    with checkpoint.taking(folder.best if folder.best.exists() else folder.last):
        built.training.put(weights)
    return weights.step
