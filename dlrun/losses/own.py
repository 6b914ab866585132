"""The loss that a model returns itself, as Hugging Face's models do: `forward(**inputs, labels=y)`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.losses.outputs import describe
from dlrun.losses.weighted import Values
from dlrun.types import IGNORE_INDEX, Batch

__all__ = ["OwnLoss"]


class OwnLoss:
    """Takes the loss that the model returns when it is called with inputs and targets.

    Inputs of a dict are passed by their names, of a tuple in order, a tensor as it is; targets as the argument
    `targets`, those of a dict by their names. The model returns a mapping or an object with `loss`, or the loss itself:
    the mean over the batch, or one value a sample. Its outputs, for metrics and predictions, are `outputs` of what it
    returns when it is called without targets. `shift`: the model itself compares the outputs of each token with the
    next label, as causal language models of Hugging Face do. A text gives the next tokens as targets, so it has to be
    said there.
    """

    def __init__(self, targets: str = "labels", outputs: str = "logits", shift: bool | None = None) -> None:
        self.targets, self.outputs, self.shift = targets, outputs, shift

    def __call__(self, model: nn.Module, batch: Batch) -> Values:
        """The model's loss; shifted and without gradients with the number of its targets.

        Raises `ConfigError` for a model that takes no such targets, or returns no loss.
        """
        x, y = batch
        given = y if isinstance(y, dict) else {self.targets: _unshifted(x, y) if self.shift else y}
        try:
            returned: Any = model(x, **given)
        except TypeError:
            _check_taken(model, given)
            raise
        found = returned if isinstance(returned, Tensor) else entry(returned, "loss")
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise ConfigError(
                f"The model `{type(model).__name__}` returns {describe(returned)} for inputs and targets; loss=own "
                "expects the loss, or a mapping or an object that has it as `loss`."
            )
        if self.shift and not torch.is_grad_enabled() and not found.ndim:
            # each window has a target less than the data count
            return found, (y[:, :-1] != IGNORE_INDEX).sum().to(found)
        return found


class AnswersAlone:
    """Gives a class of models whose outputs are within what it returns: called with inputs alone, these outputs."""

    outputs_entry: ClassVar[str]

    def forward(self, x: Any, **targets: Any) -> Any:
        """The outputs; with targets what the model itself returns."""
        inner = cast("nn.Module", super()).forward
        # by the kind of the inputs: see `OwnLoss`
        returned = inner(**x, **targets) if isinstance(x, dict) else inner(*_in_order(x), **targets)
        found = returned if isinstance(returned, Tensor) else entry(returned, self.outputs_entry)
        if targets and isinstance(found, Tensor) and not isinstance(returned, Tensor):
            # an evaluation asks for the outputs next, and keeps those of one batch
            prime = getattr(vars(self).get("forward"), "prime", None)
            if prime is not None:
                prime(x, found)
        return returned if targets or found is None else found


def answer_alone(model: nn.Module, outputs: str) -> None:
    """Have a model called with inputs alone give the entry `outputs` of what it returns.

    Its weights keep their names, and its class its own.
    """
    cls = type(model)
    own = {"outputs_entry": outputs, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    model.__class__ = type(cls.__name__, (AnswersAlone, cls), own)


def entry(returned: Any, name: str) -> Any:
    """An entry of a mapping or an object; None if it has none."""
    if isinstance(returned, Mapping):
        return returned.get(name)
    return None if isinstance(returned, Tensor) else getattr(returned, name, None)


def _unshifted(x: Any, y: Tensor) -> Tensor:
    """Labels that a model shifts to the targets: the first is compared with nothing."""
    tokens = x if isinstance(x, Tensor) else y
    return torch.cat([tokens[:, :1].to(y.dtype), y[:, :-1]], dim=1)


def _in_order(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def _check_taken(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for targets that the model's own `forward` does not take."""
    inner = super(AnswersAlone, model) if isinstance(model, AnswersAlone) else model
    known = signature(inner.forward).parameters  # type: ignore[union-attr]
    missing = [name for name in given if name not in known]
    if missing and not any(p.kind is Parameter.VAR_KEYWORD for p in known.values()):
        raise ConfigError(
            f"The model `{type(model).__name__}` takes no argument `{missing[0]}` for the targets; it takes "
            f"{', '.join(known)}. Type loss.targets=NAME, or give the data set's targets these names."
        )
