"""What is exported of a run: its model with chosen weights, and inputs to compare the file's answers on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dlrun.datasets.files.locate import without_downloads
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.engine import loop
from dlrun.engine.evaluation import batch_size_for
from dlrun.errors import UserError
from dlrun.randomness import SAMPLING, generator
from dlrun.runs.reload import Predictor, predictor, rebuild
from dlrun.runs.weights import loading
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights
from dlrun.storage.rundir import RunDir
from dlrun.types import RawInputs, identity

SAMPLES = 16
"""Inputs that the file's answers are compared on, fewer of a text with many logits."""

Weights = Literal["best", "last"]


@dataclass(frozen=True)
class Source:
    """A run's model on the CPU, in evaluation mode, with the weights of `step`."""

    folder: RunDir
    model: nn.Module
    asked: Predictor
    weights: Weights
    step: int


def load(folder: RunDir, weights: Weights = "best") -> Source:
    """A run's model with its selected weights, or with the last.

    With a moving average the last weights are the average's, which were evaluated; the data set is then needed. Raises
    `UserError` if the run has no weights yet.
    """
    asked = predictor(folder)
    chosen = loading.selected(folder) if weights == "best" else _last(folder)
    model = asked.model.to("cpu").eval()
    loading.put_asked(model, chosen, folder)
    return Source(folder, model.requires_grad_(False), asked, weights, chosen.step)


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


class Examples(NamedTuple):
    """Inputs of the file [N, …], the same as the model takes them, and where they are from."""

    given: Tensor
    prepared: Tensor
    origin: str


def examples(source: Source, *, raw: bool) -> Examples:
    """Some samples of the validation split, or drawn ones where the data set is not on this machine.

    `raw`: the file takes inputs as the data set's own files have them. Nothing is downloaded.
    """
    asked = source.asked
    try:
        with without_downloads():
            data = rebuild(source.folder, watched=False).data
    except UserError as error:
        return _drawn(asked, f" ({str(error).splitlines()[0].rstrip('.:')})", raw=raw)
    name, split = ("validation", data.validation) if data.validation is not None else ("training", data.train)
    n = max(2, min(batch_size_for(SAMPLES, data.spec), len(split)))
    # a batch of one would be exported as always one
    x = split.gather(torch.arange(n) % len(split)).x
    if not isinstance(x, Tensor):
        raise UserError(
            f"The inputs of {data.name} are a {type(x).__name__} of tensors; only models of one tensor are exported."
        )
    x, origin = x.to("cpu"), f"{n} {name} samples"
    if not raw:
        return Examples(x, x, origin)
    given = _undo(x, asked.inputs, asked.prepare)
    # the inverse of another preparation is not known
    return _drawn(asked, "", raw=True) if given is None else Examples(given, asked.prepare(given), origin)


def _undo(x: Tensor, inputs: RawInputs, prepare: Callable[[Tensor], Tensor]) -> Tensor | None:
    if prepare is identity:
        return x
    if not isinstance(prepare, Standardise):
        return None
    raw = prepare.undo(x)
    raw = raw.round() if _is_whole(inputs) else raw
    return (raw.long() if inputs.dtype == "int64" else raw.float()).reshape(len(x), *inputs.shape)


def _drawn(asked: Predictor, why: str, *, raw: bool) -> Examples:
    given = _draw(asked)
    prepared = asked.prepare(given)
    return Examples(given if raw else prepared, prepared, f"{len(given)} drawn inputs{why}")


def _draw(asked: Predictor) -> Tensor:
    """Random raw inputs in the range of the training samples."""
    inputs, draw = asked.inputs, generator(0, SAMPLING)
    n = max(2, batch_size_for(SAMPLES, asked.spec))
    if asked.spec.task == "language":
        return torch.randint(asked.spec.outputs, (n, *inputs.shape), generator=draw)
    low, high = (torch.tensor(ends or (plain,)) for ends, plain in ((inputs.low, 0.0), (inputs.high, 1.0)))
    along = [1, -1, *[1] * (len(inputs.shape) - 1)] if len(low) > 1 else [1]
    raw = low.view(along) + (high - low).view(along) * torch.rand(n, *inputs.shape, generator=draw)
    if "category" in inputs.kinds:
        # a category's value is a place in its texts
        raw = torch.where(torch.tensor([kind == "category" for kind in inputs.kinds]), raw.round(), raw)
    if inputs.dtype == "float64":
        return raw.double()
    raw = raw.round() if _is_whole(inputs) else raw
    return raw.long() if inputs.dtype == "int64" else raw.float()


def _is_whole(inputs: RawInputs) -> bool:
    return inputs.dtype.startswith(("int", "uint", "bool"))
