"""Exact evaluation: sums and counts in float64, divided once, in whatever portions.

A mean of means would depend on how the split was cut; a quotient of totals does not. The same
numbers come out for any batch size, to the rounding of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun import metrics as known
from dlrun.objective import Objective
from dlrun.types import Batch, Metric, Split


@dataclass(frozen=True)
class Collected:
    """What the model made of a split, for pictures: inputs, targets and outputs, on the CPU."""

    x: Tensor
    y: Tensor
    output: Tensor


FORWARD = ("forward", "features", "logits", "log_prob")
"""The methods of models that losses and metrics share the answers of, beside the call itself."""


class Memo:
    """A model that remembers its last answers, so that loss and metrics share one forward pass.

    In all else it is the model: its class, its parameters, its other methods. A model that was put into
    training mode, or whose parameters changed since, answers anew.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._answers: dict[tuple[Any, ...], Any] = {}

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The model's, for `isinstance`."""
        return type(self._model)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Return `model(*args, **named)`, computed once."""
        return self._remember("", self._model, args, named)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name not in FORWARD or isinstance(value, nn.Module):
            return value
        return lambda *args, **named: self._remember(name, value, args, named)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("_model", "_answers"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._model, name, value)

    # what Python looks up in the class, past `__getattr__`
    def __getitem__(self, item: Any) -> Any:
        """Return a layer of a sequential model."""
        return cast("Any", self._model)[item]

    def __len__(self) -> int:
        return len(cast("Any", self._model))

    def __bool__(self) -> bool:
        return bool(self._model)

    def __iter__(self) -> Iterator[Any]:
        return iter(cast("Any", self._model))

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return deepcopy(self._model, memo)

    def _remember(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._model.training:
            return function(*args, **named)
        key = (name, torch.is_grad_enabled(), *map(id, args), *((k, id(v)) for k, v in sorted(named.items())))
        key += tuple((id(p), p._version) for p in self._model.parameters())
        if key not in self._answers:
            # the inputs are kept too: an id is only unique while its object lives
            self._answers[key] = (function(*args, **named), args, named)
        return self._answers[key][0]


def evaluate(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, *, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Return the loss, every metric, and what is derived from them, over the whole split."""
    return _means(objective, metrics, _batches(split, batch_size, device))


def collect(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, *, batch_size: int, device: torch.device
) -> tuple[dict[str, float], Collected]:
    """Return the metrics as `evaluate` does, and what the model answered, from the same one pass."""
    seen: list[list[Tensor]] = []

    def keep(model: nn.Module, batch: Batch) -> None:
        seen.append([t.float().cpu() if t.is_floating_point() else t.cpu() for t in (*batch, model(batch.x))])

    means = _means(objective, metrics, _batches(split, batch_size, device), look=keep)
    return means, Collected(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


def loss_total(objective: Objective, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the loss as a sum and a count. A loss that gives only the mean counts its samples."""
    values = objective.loss(model, batch)
    if values.ndim == 0:
        return wide(values) * len(batch.x), len(batch.x)
    return wide(values).sum(), values.numel()


def wide(values: Tensor) -> Tensor:
    """Return `values` in float64, on the host where the device has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def remembering(model: nn.Module) -> nn.Module:
    """Return `model`, to be asked about one batch by the loss and by every metric."""
    return cast("nn.Module", Memo(model))


def _means(
    objective: Objective,
    metrics: Mapping[str, Metric],
    batches: Iterable[Batch],
    *,
    look: Callable[[nn.Module, Batch], None] = lambda model, batch: None,
) -> dict[str, float]:
    """Return what is computed over all batches; `look` sees each with the model that has answered."""
    total = _Totals()
    with evaluating(objective.model), objective.precision():
        for batch in batches:
            model = remembering(objective.model)
            total.add("loss", loss_total(objective, model, batch))
            for name, metric in metrics.items():
                total.add(name, metric(model, batch))
            look(model, batch)
    return total.means()


def _batches(split: Split, batch_size: int, device: torch.device) -> Iterator[Batch]:
    n = len(split)
    for start in range(0, n, batch_size):
        x, y = split.gather(torch.arange(start, min(start + batch_size, n), device=device))
        yield Batch(x.to(device), y.to(device))


class _Totals:
    """Running sums and counts, added on the device and read once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def add(self, name: str, total: tuple[Tensor, int | Tensor]) -> None:
        value, count = total
        self._sums[name] = self._sums[name] + value if name in self._sums else wide(value)
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        means = {name: float(value) / float(self._counts[name]) for name, value in self._sums.items()}
        return means | known.derived(means)
