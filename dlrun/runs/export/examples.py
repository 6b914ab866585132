"""Inputs on which a file's answers are compared with the run's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.datasets.files.locate import without_downloads
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.engine.evaluation import batch_size_for
from dlrun.errors import UserError
from dlrun.nests.nest import Nest, map_nest
from dlrun.nests.shapes import describe_shapes, is_shape, shapes_in
from dlrun.randomness import SAMPLING, generator
from dlrun.runs.export.trained import TrainedModel
from dlrun.runs.reload.predictor import Predictor
from dlrun.runs.reload.rebuild import rebuild
from dlrun.types import RawInputs, identity

SAMPLES = 16
"""Fewer of a text with many logits."""


class Examples(NamedTuple):
    """Inputs of the file [N, …], or nests of such, the same as the model takes them, and where they are from."""

    given: Nest
    prepared: Nest
    origin: str


def check_fixed(predictor: Predictor) -> None:
    """Raise `UserError` for inputs of several tensors whose lengths differ from sample to sample."""
    shape = predictor.spec.input_shape
    if not is_shape(shape) and any(None in each for each in shapes_in(shape)):
        raise UserError(
            f"The model's inputs are {describe_shapes(shape)}, of several lengths; a graph of several tensors has them "
            "fixed. Its weights can be exported: --format safetensors. Or export it in Python, "
            "`torch.export.export(dlrun.load(RUN).model, (inputs,))`."
        )


def examples(trained: TrainedModel, *, raw: bool) -> Examples:
    """Some samples of the validation split, or drawn ones where the data set is not on this machine.

    `raw`: the file takes inputs as the data set's own files have them. Nothing is downloaded.
    """
    predictor = trained.predictor
    try:
        with without_downloads():
            data = rebuild(trained.folder, watched=False).data
    except UserError as error:
        if not is_shape(predictor.spec.input_shape):
            raise
        return _drawn(predictor, f" ({str(error).splitlines()[0].rstrip('.:')})", raw=raw)
    name, split = ("validation", data.validation) if data.validation is not None else ("training", data.train)
    n = max(2, min(batch_size_for(SAMPLES, data.spec), len(split)))
    # a batch of one would be exported as always one
    x = map_nest(lambda t: t.to("cpu"), split.gather(torch.arange(n) % len(split)).x)
    origin = f"{n} {name} samples"
    if not raw or not isinstance(x, Tensor):
        return Examples(x, x, origin)
    given = _undo(x, predictor.inputs, predictor.prepare)
    # the inverse of another preparation is not known
    return _drawn(predictor, "", raw=True) if given is None else Examples(given, predictor.prepare(given), origin)


def _undo(x: Tensor, inputs: RawInputs, prepare: Callable[[Tensor], Tensor]) -> Tensor | None:
    if prepare is identity:
        return x
    if not isinstance(prepare, Standardise):
        return None
    raw = prepare.undo(x)
    raw = raw.round() if _is_whole(inputs) else raw
    return (raw.long() if inputs.dtype == "int64" else raw).reshape(len(x), *inputs.shape)


def _drawn(predictor: Predictor, why: str, *, raw: bool) -> Examples:
    given = _draw(predictor)
    prepared = predictor.prepare(given)
    return Examples(given if raw else prepared, prepared, f"{len(given)} drawn inputs{why}")


def _draw(predictor: Predictor) -> Tensor:
    """Random raw inputs in the range of the training samples."""
    inputs, draw = predictor.inputs, generator(0, SAMPLING)
    n = max(2, batch_size_for(SAMPLES, predictor.spec))
    if predictor.spec.task == "language":
        return torch.randint(predictor.spec.outputs, (n, *inputs.shape), generator=draw)
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
