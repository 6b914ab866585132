"""A loss or metric of one entry of a model's outputs, and of one of the targets, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dlrun.errors import ConfigError
from dlrun.losses.class_axis import axis_of
from dlrun.losses.with_forward import with_forward
from dlrun.nests.batch import Batch
from dlrun.nests.nest import Nest, is_nest


class OfEntries:
    """A loss or metric that sees `model(x)[output]` and `batch.y[target]`; None: all of it.

    Of a metric of a whole split it is called with these outputs and targets.
    """

    def __init__(self, part: Callable[..., Any], output: str | None = None, target: str | None = None) -> None:
        self.part, self.output, self.target = part, output, target

    def __call__(self, one: Any, other: Any) -> Any:
        """The value of a model and a batch, or of outputs and targets."""
        if not isinstance(other, Batch):
            return self.part(entry(one, self.output, "output"), entry(other, self.target, "target"))
        part, model, batch = self.opened(one, other)
        return part(model, batch)

    def opened(self, model: nn.Module, batch: Batch) -> tuple[Any, nn.Module, Batch]:
        """The part, and the model and the batch as it sees them."""
        y = entry(batch.y, self.target, "target")
        return self.part, _returning(model, self.output), batch._replace(y=y)

    def __getattr__(self, name: str) -> Any:
        # a direction and the like are those of the function, also of one with arguments
        if name in ("higher_is_better", "of_batch", "of_split", "of_weights", "task", "weighs"):
            return getattr(getattr(self.part, "func", self.part), name)
        raise AttributeError(name)


def of_entries(part: Callable[..., Any], names: Mapping[str, object]) -> Callable[..., Any]:
    """The part, of entries if there are names; places of tuples may be numbers."""
    given = {key: str(name) for key, name in names.items() if name is not None}
    return OfEntries(part, **given) if given else part


def targets_of(part: object, y: Nest) -> Nest:
    """The targets that a loss or metric is of: one entry, or all of them."""
    return entry(y, part.target, "target") if isinstance(part, OfEntries) else y


def entry(nest: Nest, name: str | None, what: str) -> Nest:
    """An entry of a tuple or dict.

    Raises `ConfigError` that lists the entries.

    >>> entry({"box": 1, "label": 2}, "label", "target"), entry((5, 6), "1", "output")
    (2, 6)
    """
    if name is None:
        return nest
    entries: Mapping[str, Nest] = {}
    if isinstance(nest, Mapping):
        entries = nest
    elif is_nest(nest):
        entries = {str(place): part for place, part in enumerate(nest)}
    if name in entries:
        return entries[name]
    has = ", ".join(map(str, entries)) or f"a {type(nest).__name__}, which has none"
    raise ConfigError(f"{what}={name}: there is no such entry. The {what}s are: {has}.")


def _returning(model: nn.Module, name: str | None) -> nn.Module:
    """The model, where a call gives one entry of its outputs."""
    if name is None:
        return model
    head = with_forward(model, lambda x: entry(model(x), name, "output"))
    if hasattr(model, "class_axis"):
        vars(head)["class_axis"] = axis_of(model, name)
    return head
