"""A run rebuilt from its folder alone: to resume, test or predict with it, or for a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from dlrun.analysis.frames import curves_frame
from dlrun.config import instantiate, trust
from dlrun.config.check import check_config
from dlrun.config.settings import Evaluation, Trainer
from dlrun.datasets.tensors import raw_inputs
from dlrun.datasets.tensors.spec import read_spec, restore
from dlrun.engine.evaluation import batch_size_for, evaluating
from dlrun.engine.forward.views import Views, averaging, make_views
from dlrun.errors import ConfigError, DamagedFile, MissingModule, UserError
from dlrun.execution.device import autocast, choose
from dlrun.losses.outputs import rows
from dlrun.runs.build import Built, assemble, identity
from dlrun.runs.parts import make_dataset, make_model
from dlrun.runs.weights import loading
from dlrun.storage import checkpoint, run_config
from dlrun.storage.files.links import check_files
from dlrun.storage.identity import Identity
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import ADVICE
from dlrun.tokenizers import description
from dlrun.types import Data, RawInputs, Spec, Tokenizer
from dlrun.types import identity as unchanged

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Loaded:
    """A run in a notebook, its model with the selected weights.

    `prepare` maps raw inputs, as in the data set's files, to the model's. The data set is loaded when `data` is first
    asked for.
    """

    model: nn.Module
    prepare: Callable[[Tensor], Tensor]
    spec: Spec
    config: DictConfig
    summary: dict[str, Any]
    folder: RunDir

    def __repr__(self) -> str:
        # a notebook shows it; the fields would take 14 kB
        return f"Loaded({type(self.model).__name__}, {self.summary.get('name')}, {str(self.folder.path)!r})"

    @cached_property
    def data(self) -> Data:
        """The run's data set, on its device.

        Raises `UserError` if its files are missing, or are not those that the run was trained on.
        """
        return rebuild(self.folder, watched=False).data

    def restore(self, outputs: Tensor) -> Tensor:
        """Outputs in the unit of the raw targets: of `dataset.scale_targets` scaled back, else as they are."""
        return restore(self.spec, outputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the selected weights: `run.metrics["test/error"]`."""
        return {name: float(value) for name, value in self.folder.summary().metrics.items()}

    @property
    def curves(self) -> pd.DataFrame:
        """What has been logged so far: a row a step, a column a metric, and the epoch."""
        return curves_frame(self.folder.journal)


@dataclass(frozen=True)
class Predictor:
    """A run's model with its selected weights, and what it takes to ask it."""

    model: nn.Module
    spec: Spec
    inputs: RawInputs
    prepare: Callable[[Tensor], Tensor]
    config: dict[str, Any]
    device: torch.device
    precision: str
    views: Views | None = None

    def __call__(self, raw: Tensor) -> Tensor:
        """The model's outputs [N, ...] for raw inputs [N, *shape], on the CPU; those of scaled targets scaled back.

        Raises `UserError` if the model returns anything else.
        """
        inputs = self.prepare(raw if raw.dtype in (torch.int64, torch.float64) else raw.float())
        size = batch_size_for(Evaluation(**self.config["evaluation"]).batch_size, self.spec)
        cast = autocast(self.device, self.precision)
        context = torch.autocast(*cast) if cast else nullcontext()
        with evaluating(self.model), averaging(self.model, self.views), context:
            parts = [rows(self.model, x.to(self.device)) for x in torch.split(inputs, size)]
        return restore(self.spec, torch.cat(parts).float().cpu())


def load(reference: str, *, trusted: Sequence[str] = ()) -> Loaded:
    """Load a run with its selected weights, without its data set.

    `reference` is its folder or the beginning of its id.

    >>> import dlrun
    >>> run = dlrun.load("k3x9")                            # doctest: +SKIP
    >>> run.model(run.prepare(raw))                         # doctest: +SKIP

    Raises `UserError` if there is no such run, or it has no weights yet.
    """
    trust.grant(trusted)
    folder = find(reference)
    made = predictor(folder)
    config = OmegaConf.create(made.config)
    return Loaded(made.model.eval(), made.prepare, made.spec, config, folder.summary().to_dict(), folder)


def predictor(folder: RunDir) -> Predictor:
    """A run to ask, from its folder alone.

    Only a run from before its inputs were kept, or with a preparation of the user's own, needs its data set. Raises
    `UserError` if the run has no weights yet.
    """
    check_files(folder.path)
    config = _unwatched(_for_this_machine(run_config.load(folder), folder, begun=folder.last.exists()))
    summary, spec = folder.summary(), spec_of(folder)
    try:
        inputs, prepare = raw_inputs.restore(summary.inputs) if summary.inputs else (None, unchanged)
    except ValueError as error:
        raise DamagedFile(folder.path / "summary.json", str(error), ADVICE) from None
    if spec is None or (inputs is None and spec.task != "language"):
        data = rebuild(folder, watched=False).data
        spec, prepare, inputs = data.spec, data.prepare, data.inputs
    with _naming_start(folder):
        plain = check_config(config)
    trainer = Trainer(**plain["trainer"])
    device, precision = choose(trainer.device, trainer.precision)
    if summary.threads and summary.device == device.type:
        torch.set_num_threads(summary.threads)
    model = model_of(folder, spec)[0].to(device)
    inputs = inputs or RawInputs(spec.input_shape, "int64" if spec.task == "language" else "float32")
    views = make_views(Evaluation(**plain["evaluation"]).views, spec.input_shape)
    return Predictor(model, spec, inputs, prepare, plain, device, precision, views)


def spec_of(folder: RunDir) -> Spec | None:
    """The sizes of a run's model; None if an early dlrun kept none.

    Raises `DamagedFile`.
    """
    said: Any = folder.summary().spec
    if not said:
        return None
    if (spec := read_spec(said)) is None:
        raise DamagedFile(folder.path / "summary.json", "its `spec` is none of a model", ADVICE)
    return spec


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
    config = _for_this_machine(run_config.load(folder) if changed is None else changed.copy(), folder, begun=begun)
    with _naming_start(folder):
        plain = check_config(config if watched else _unwatched(config))
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
def _naming_start(folder: RunDir) -> Iterator[None]:
    """Of a part whose module is not found, say where the run was begun."""
    try:
        yield
    except MissingModule as error:
        start = folder.summary().directory
        if start is None or Path(start) == Path.cwd():
            raise
        gone = "" if Path(start).is_dir() else ", which is not on this machine"
        raise MissingModule(f"{error} The run {folder.id} was begun in {start}{gone}: its modules lie there.") from None


def _for_this_machine(config: DictConfig, folder: RunDir, *, begun: bool) -> DictConfig:
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


def _unwatched(config: DictConfig) -> DictConfig:
    """A configuration without observers: they watch a training."""
    if config.get("observers"):
        config.observers = {}
    return config


def _device(config: DictConfig) -> str:
    # of a configuration that is still to be checked
    with suppress(OmegaConfBaseException):
        return str(OmegaConf.select(config, "trainer.device"))
    return ""


def model_of(folder: RunDir, spec: Spec) -> tuple[nn.Module, int]:
    """A run's model with its selected weights, adapters merged into them, and their step.

    Without a best validation these are the last weights. The data set is not loaded. Raises `UserError` if the run has
    no weights yet.
    """
    weights = loading.selected(folder)
    kept = run_config.load(folder)
    trust.check_environment(kept, of=f"The configuration of {folder.path}")
    plain = OmegaConf.to_container(kept, resolve=True)
    assert isinstance(plain, dict)
    config = {str(name): value for name, value in plain.items()} | {"trusted": trust.trusted_names()}
    model = make_model(config, spec, of=config["name"])
    loading.put_asked(model, weights, folder)
    return model, weights.step


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
    weights = loading.selected(folder)
    loading.put(built.training.objective.model, weights.model, where=str(folder.path))
    with checkpoint.taking(folder.best if folder.best.exists() else folder.last):
        built.training.put(weights)
    return weights.step
