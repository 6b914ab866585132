"""Exact evaluation: sums and counts in float64, divided once, in whatever portions.

A mean of means would depend on how the split was cut; a quotient of totals does not. The same
numbers come out for any batch size, to the rounding of the forward pass. Of a text each token counts
that is predicted, and a split may be walked along, with the model's memory carried from batch to batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from dlrun import metrics as known
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.engine.objective import Objective
from dlrun.execution.cuda_graphs import Asked
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.types import IGNORE_INDEX, Batch, LanguageModel, Loss, Metric, Spec, Split

Total = tuple[Tensor, int | Tensor]
"""A sum and a count."""
Found = dict[str, Total]
"""The totals of the loss and of each metric."""


@dataclass(frozen=True)
class Collected:
    """What the model made of a split, for pictures: inputs, targets and outputs, on the CPU."""

    x: Tensor
    y: Tensor
    output: Tensor


@runtime_checkable
class Walked(Protocol):
    """A split that is evaluated along its rows, from left to right, with a memory."""

    def walk(self, rows: int) -> Iterator[tuple[bool, Batch]]:
        """Yield (fresh, batch): `rows` rows' next pieces; the memory goes on, but for a `fresh` batch."""


LOGITS = 256 << 20
"""Bytes that the logits of a portion of text may take."""

TOKENS = 1 << 14
"""Tokens that a portion of text may have: more go no faster, and leave a processor's caches."""


def portion(samples: int, spec: Spec) -> int:
    """Return how many samples to evaluate at once: as many as asked for, of a text no more than have room.

    >>> portion(1000, Spec("language", input_shape=(128,), outputs=33278, vocabulary=33278))
    15
    """
    if spec.task != "language":
        return samples
    tokens = min(TOKENS, LOGITS // (4 * spec.outputs))
    return max(1, min(samples, tokens // spec.input_shape[0]))


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

    def know(self, x: Tensor, answer: Tensor) -> None:
        """Take over the answer to `x`, which was found in another way than by the model's plain call."""
        for name in ("", "forward"):
            self._answers[self._key(name, (x,), {})] = (answer, (x,), {})

    def _remember(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._model.training:
            return function(*args, **named)
        key = self._key(name, args, named)
        if key not in self._answers:
            # the inputs are kept too: an id is only unique while its object lives
            self._answers[key] = (function(*args, **named), args, named)
        return self._answers[key][0]

    def _key(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        inputs = (*map(id, args), *((k, id(v)) for k, v in sorted(named.items())))
        return (name, torch.is_grad_enabled(), *inputs, *((id(p), p._version) for p in self._model.parameters()))


def evaluate(
    objective: Objective,
    metrics: Mapping[str, Metric],
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    asked: Asked | None = None,
) -> dict[str, float]:
    """Return the loss, every metric, and what is derived from them, over the whole split.

    A split that is walked along needs a model that carries a memory (`types.LanguageModel`) and has no bound. Of any
    other `asked` may find the sums and counts of a portion in another way than `totals`.
    """
    if isinstance(split, Walked):
        return _means(objective, split, _along(objective, metrics, split.walk(batch_size), device))
    asked = asked or partial(totals, objective, metrics)
    return _means(objective, split, map(asked, _portions(split, batch_size, device)))


def totals(objective: Objective, metrics: Mapping[str, Metric], batch: Batch, *, memo: Memo | None = None) -> Found:
    """Return the sum and the count of the loss and of each metric over a batch, from one forward pass.

    `memo` is the objective's model, if it has answered already.
    """
    model = cast("nn.Module", Memo(objective.model) if memo is None else memo)
    with objective.precision():
        found: Found = {"loss": loss_total(objective, model, batch)}
        for name, metric in metrics.items():
            same = metric is known.nll and _is_nll(objective.loss)
            found[name] = found["loss"] if same else metric(model, batch)
    return found


def collect(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, *, batch_size: int, device: torch.device
) -> tuple[dict[str, float], Collected]:
    """Return the metrics as `evaluate` does, and what the model answered, from the same one pass.

    Not of a split that is walked along: the answers to a whole text are not for keeping.
    """
    seen: list[list[Tensor]] = []

    def keep(memo: Memo, batch: Batch) -> None:
        with objective.precision():
            seen.append([t.float().cpu() if t.is_floating_point() else t.cpu() for t in (*batch, memo(batch.x))])

    def asked(batch: Batch) -> Found:
        memo = Memo(objective.model)
        found = totals(objective, metrics, batch, memo=memo)
        keep(memo, batch)
        return found

    means = evaluate(objective, metrics, split, batch_size=batch_size, device=device, asked=asked)
    return means, Collected(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


def loss_total(objective: Objective, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
    """Return the loss as a sum and a count: of samples, or of the tokens that are predicted.

    A loss that gives only the mean counts as many.
    """
    values, y = objective.loss(model, batch), batch.y
    whole = not y.is_floating_point()
    if values.ndim == 0:
        count = known.count(y) if whole else len(batch.x)
        return wide(values) * count, count
    if whole and values.shape == y.shape:
        return wide(values.masked_fill(y == IGNORE_INDEX, 0.0)).sum(), known.count(y)
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


def _means(objective: Objective, split: Split, found: Iterable[Mapping[str, Total]]) -> dict[str, float]:
    """Return what is computed over all portions, each asked while the model evaluates."""
    total = _Totals()
    with evaluating(objective.model):
        for portion in found:
            for name, each in portion.items():
                total.add(name, each)
    means = total.means()
    return means | known.derive(means, bytes_per_token=bytes_per_token(split))


def _along(
    objective: Objective, metrics: Mapping[str, Metric], walk: Iterable[tuple[bool, Batch]], device: torch.device
) -> Iterator[Found]:
    """Yield the totals of the batches of a walk, the memory carried on."""
    step, memory = cast("LanguageModel", objective.model).step, None
    for fresh, (x, y) in walk:
        batch, memo = Batch(x.to(device), y.to(device)), Memo(objective.model)
        with objective.precision():
            answer, memory = step(batch.x, None if fresh else memory)
        memo.know(batch.x, answer)
        yield totals(objective, metrics, batch, memo=memo)


def _is_nll(loss: Loss) -> bool:
    """Return whether a loss is the negative log-likelihood: of a large vocabulary it takes as long as the model."""
    smoothed = getattr(loss, "keywords", {}).get("label_smoothing", 0.0)
    return getattr(loss, "func", loss) is cross_entropy and not smoothed


def _portions(split: Split, size: int, device: torch.device) -> Iterator[Batch]:
    n = len(split)
    for start in range(0, n, size):
        x, y = split.gather(torch.arange(start, min(start + size, n), device=device))
        yield Batch(x.to(device), y.to(device))


class _Totals:
    """Running sums and counts, added on the device and read once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def add(self, name: str, total: tuple[Tensor, int | Tensor]) -> None:
        value, count = total
        # a sum is a new tensor: what was found may lie where the next portion's will
        self._sums[name] = self._sums.get(name, 0.0) + wide(value)
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        return {name: float(value) / float(self._counts[name]) for name, value in self._sums.items()}
