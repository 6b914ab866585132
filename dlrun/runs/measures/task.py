"""The task of a run, and the inputs that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from dlrun.config import instantiate
from dlrun.errors import ConfigError
from dlrun.losses.nll import is_of_density
from dlrun.losses.triplet import learns_embedding, triplet
from dlrun.nests.shapes import describe_shapes, is_shape
from dlrun.types import Data, Spec


def for_loss(data: Data, plain: Mapping[str, Any]) -> Data:
    """The data set as the loss takes it.

    One of a density looks at the inputs alone, without classes and targets. One of embeddings leaves the number of
    outputs to the model. Raises `ConfigError` where nobody gives it, and for several views of a density's image.
    """
    loss = instantiate.resolve(plain["loss"]["_target_"], trusted=plain["trusted"])
    if learns_embedding(loss):
        if loss is triplet:
            _check_triplets(plain["trainer"])
        return replace(data, spec=replace(data.spec, task="embedding", outputs=_dimension(plain)))
    if not is_of_density(loss):
        return data
    if plain["evaluation"].get("views"):
        raise ConfigError("evaluation.views averages outputs; a mean of log-densities is none. Leave it out.")
    if data.spec.task in ("density", "language"):
        return data
    spec = replace(data.spec, task="density", outputs=1, classes=None, class_names=())
    return replace(data, spec=spec, truth=None)


def _check_triplets(trainer: Mapping[str, Any]) -> None:
    """Refuse batches without a triplet: the loss would be 0, and nothing learned."""
    classes, size = trainer.get("classes_per_batch"), trainer["batch_size"]
    given = f"trainer.batch_size={size}" + (f" trainer.classes_per_batch={classes}" if classes else "")
    if size is not None and (size < 3 or (classes and (classes == 1 or size < 2 * classes))):
        raise ConfigError(
            f"{given}: a triplet takes two samples of a class and one of another, which no batch would have. Type for "
            f"example trainer.batch_size={max(64, 8 * (classes or 0))} trainer.classes_per_batch={max(2, classes or 8)}"
        )


def _dimension(plain: Mapping[str, Any]) -> int:
    """The number of a model's outputs: a dimension that no data set tells."""
    given = plain["model"].get("outputs")
    model = instantiate.resolve(plain["model"]["_target_"], trusted=plain["trusted"])
    if given is None and "outputs" in signature(model).parameters:
        raise ConfigError(
            f"loss={plain['loss']['_target_'].rpartition('.')[2]} learns an embedding, and the data set does not say "
            "of how many components. Type for example +model.outputs=16"
        )
    # of a model that has a number of its own nothing asks for this one
    return int(given or 1)


def check_takes(model: str, spec: Spec, *, of: str) -> None:
    """Raise `ConfigError` for a model of dlrun's and inputs that are not one tensor of a fixed shape.

    A model with an attribute `takes_nests` looks at the shapes itself.
    """
    if not model.startswith("dlrun.") or (is_shape(spec.input_shape) and None not in spec.input_shape):
        return
    if getattr(instantiate.resolve(model), "takes_nests", False):
        return
    advice = "Type model=seq2seq, or write" if spec.vocabulary and "source" in spec.input_shape else "Write"
    raise ConfigError(
        f"model={model} takes one tensor of a fixed shape; the inputs of {of} are "
        f"{describe_shapes(spec.input_shape)}. {advice} a model of your own, which gets these shapes as "
        "`input_shape` and is called with what a batch has."
    )
