"""A run rebuilt from its folder alone: to resume, test or predict with it, or for a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from dlrun.config import instantiate, trust
from dlrun.config.check import check_config
from dlrun.errors import ConfigError, UserError
from dlrun.runs.build import Built, assemble, identity
from dlrun.runs.parts import make_dataset, make_model
from dlrun.runs.weights import loading
from dlrun.storage import run_config
from dlrun.storage.files.links import check_files
from dlrun.storage.identity import Identity
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.tokenizers import description
from dlrun.types import Data, Spec, Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A run in a notebook, its model with the selected weights."""

    model: nn.Module
    data: Data
    config: DictConfig
    summary: dict[str, Any]


def load(reference: str, *, trusted: Sequence[str] = ()) -> Loaded:
    """Load a run with its selected weights.

    `reference` is its folder or the beginning of its id.

    >>> import dlrun
    >>> run = dlrun.load("k3x9")                            # doctest: +SKIP
    >>> run.model(run.data.validation.gather(...).x)        # doctest: +SKIP

    Raises `UserError` if there is no such run, or it has no weights yet.
    """
    trust.grant(trusted)
    folder = find(reference)
    built = rebuild(folder)
    select(built, folder)
    model = built.training.objective.model.eval()
    return Loaded(model, built.data, OmegaConf.create(built.config), folder.summary().to_dict())


def rebuild(
    folder: RunDir, changed: DictConfig | None = None, *, load: Callable[[dict[str, Any]], Data] = make_dataset
) -> Built:
    """Build a run from its folder, with initial weights.

    A `changed` configuration replaces the folder's; `load` makes the data set. Without CUDA, a run of it is built on
    this machine's best device. Raises `UserError` if the data set is not the one that the run was trained on, or the
    folder has links out of it.
    """
    check_files(folder.path)
    config = run_config.load(folder) if changed is None else changed.copy()
    # a run of a GPU machine is looked at on a laptop
    if _device(config).startswith("cuda") and not torch.cuda.is_available():
        config.trainer.device = "auto"
    summary, begun = folder.summary(), folder.last.exists()
    if begun:
        # it has weights of its own: those it started from may be gone by now
        config.init_from = None
    config.trusted = trust.trusted_names()
    plain = check_config(config)
    built = assemble(plain, data=load(plain), resumed_execution=summary.execution)
    if begun:
        initial = summary.initial_weights
        built = replace(built, initial_weights=initial)
        # resuming after an edit of the code makes no other run of it; a changed configuration does
        if changed is None and summary.identity:
            made = Identity(summary.identity, summary.identity_parts)
        else:
            made = identity(built.config, built.data, built.execution, initial)
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


def _device(config: DictConfig) -> str:
    # of a configuration that is still to be checked
    with suppress(OmegaConfBaseException):
        return str(OmegaConf.select(config, "trainer.device"))
    return ""


def model_of(folder: RunDir, spec: Spec) -> tuple[nn.Module, int]:
    """A run's model with its selected weights, and their step.

    Without a best validation these are the last weights. The data set is not loaded. Raises `UserError` if the run has
    no weights yet.
    """
    values, step = loading.of_run(folder)
    plain = OmegaConf.to_container(run_config.load(folder), resolve=True)
    assert isinstance(plain, dict)
    config = {str(name): value for name, value in plain.items()} | {"trusted": trust.trusted_names()}
    model = make_model(config, spec, of=config["name"])
    loading.put(model, values, where=str(folder.path))
    return model, step


def tokenizer_of(folder: RunDir) -> Tokenizer:
    """The tokenizer of a language run.

    Raises `UserError` if it has none, or it cannot be made again.
    """
    if not folder.tokenizer.is_file():
        raise UserError(f"{folder.path} has no tokenizer.json: the tokens of its data set stand for no text.")
    try:
        return instantiate.make_tokenizer(description.read(folder.tokenizer), trusted=trust.trusted_names())
    except ConfigError as error:
        raise UserError(f"The tokenizer of {folder.path} cannot be made: {error}") from error


def select(built: Built, folder: RunDir) -> int:
    """Load the selected weights into the model; returns their step.

    Without a best validation these are the last weights.
    """
    values, step = loading.of_run(folder)
    loading.put(built.training.objective.model, values, where=str(folder.path))
    return step
