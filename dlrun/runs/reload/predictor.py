"""A run's model with its selected weights, to be asked: its data set is not loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from dlrun.config import instantiate, trust
from dlrun.config.check import check_config, most_threads
from dlrun.config.settings import Evaluation, Trainer
from dlrun.datasets.tensors import raw_inputs
from dlrun.datasets.tensors.spec import read_spec, restore
from dlrun.engine.evaluation import batch_size_for, evaluating
from dlrun.engine.forward.views import Views, averaging, make_views
from dlrun.errors import ConfigError, DamagedFile, UserError
from dlrun.execution.device import autocast, choose
from dlrun.losses.outputs import rows
from dlrun.runs.parts import make_model
from dlrun.runs.reload.rebuild import for_this_machine, naming_start, rebuild, unwatched
from dlrun.runs.weights import loading
from dlrun.storage import run_config
from dlrun.storage.files.links import check_files
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import ADVICE
from dlrun.tokenizers import description
from dlrun.types import RawInputs, Spec, Tokenizer
from dlrun.types import identity as unchanged


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
        inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
        size = batch_size_for(Evaluation(**self.config["evaluation"]).batch_size, self.spec)
        with self._asking(), averaging(self.model, self.views):
            parts = [rows(self.model, x.to(self.device)) for x in torch.split(inputs, size)]
        return restore(self.spec, torch.cat(parts).float().cpu())

    def generate(self, source: Tensor) -> Tensor:
        """The tokens [N, T] that the model writes for source tokens [N, S], on the CPU."""
        model: Any = self.model
        with self._asking():
            found: Tensor = model.generate(source.to(self.device))
        return found.cpu()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        cast = autocast(self.device, self.precision)
        with evaluating(self.model), torch.autocast(*cast) if cast else nullcontext():
            yield


def load_predictor(folder: RunDir) -> Predictor:
    """A run to ask, from its folder alone.

    Only a run from before its inputs were kept, or with a preparation of the user's own, needs its data set. Raises
    `UserError` if the run has no weights yet.
    """
    check_files(folder.path)
    config = unwatched(for_this_machine(run_config.load(folder), folder, begun=folder.last.exists()))
    summary, spec = folder.summary(), spec_of(folder)
    try:
        inputs, prepare = raw_inputs.restore(summary.inputs) if summary.inputs else (None, unchanged)
    except ValueError as error:
        raise DamagedFile(folder.path / "summary.json", str(error), ADVICE) from None
    if spec is None or (inputs is None and spec.task != "language"):
        data = rebuild(folder, watched=False).data
        spec, prepare, inputs = data.spec, data.prepare, data.inputs
    with naming_start(folder):
        plain = check_config(config)
    trainer = Trainer(**plain["trainer"])
    device, precision = choose(trainer.device, trainer.precision)
    if summary.threads and summary.device == device.type:
        # of a folder from elsewhere; far too many crash
        torch.set_num_threads(max(1, min(int(summary.threads), most_threads())))
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


def learned_pairs(folder: RunDir) -> bool:
    """Has a run learned from pairs of texts?"""
    return folder.tokenizer.is_file() and description.read(folder.tokenizer).get("kind") == description.PAIR
