"""What is exported of a run: its model, with the selected weights or the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlrun.engine import loop
from dlrun.errors import UserError
from dlrun.runs.reload.predictor import Predictor, load_predictor
from dlrun.runs.reload.rebuild import rebuild
from dlrun.runs.weights import loading
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights
from dlrun.storage.rundir import RunDir

Weights = Literal["best", "last"]


@dataclass(frozen=True)
class TrainedModel:
    """A run's model on the CPU, in evaluation mode, with the weights of `step`."""

    folder: RunDir
    model: nn.Module
    predictor: Predictor
    weights: Weights
    step: int


def load(folder: RunDir, weights: Weights = "best") -> TrainedModel:
    """A run's model with its selected weights, or with the last.

    With a moving average the last weights are the average's, which were evaluated; the data set is then needed. Raises
    `UserError` if the run has no weights yet.
    """
    predictor = load_predictor(folder)
    chosen = loading.selected(folder) if weights == "best" else _last(folder)
    model = predictor.model.to("cpu").eval()
    loading.put_asked(model, chosen, folder)
    return TrainedModel(folder, model.requires_grad_(False), predictor, weights, chosen.step)


def _last(folder: RunDir) -> BestWeights:
    if not folder.last.exists():
        raise UserError(f"{folder.path} has no last weights: checkpoints/last.pt is missing. Leave --weights out.")
    last = checkpoint.load(folder.last)
    if last.average is None:
        return BestWeights(last.step, {}, last.model, last.own)
    training = rebuild(folder, watched=False).training
    with checkpoint.taking(folder.last):
        loop.restore(training, last)
    with loop.use_average(training.average):
        values = loop.clone_state(training.objective.model.state_dict())
    return BestWeights(last.step, {}, values, last.own)
