"""Exact evaluation: sums and counts in float64, divided once.

A mean of means would depend on the batch size; a quotient of totals does not. The numbers are the same for any batch
size, up to the rounding of the forward pass. In a text each predicted token counts. A split of contiguous windows is
evaluated from left to right, with the model's memory carried from batch to batch. Metrics of a whole split
(`types.SplitMetric`) are computed once, of all outputs; those with states (`forward.states`) add up their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from dlrun import metrics as known
from dlrun.datasets.tensors.spec import tokens_of_sample
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.engine.failures.explaining import describe_batch
from dlrun.engine.forward.cache import cache_forward
from dlrun.engine.forward.states import SplitFunction
from dlrun.engine.forward.targets import restored
from dlrun.engine.forward.totals import Sums, Total, loss_total
from dlrun.engine.forward.views import averaging
from dlrun.engine.forward.whole_split import (
    OUTPUTS,
    ask_outputs,
    compute,
    inputs_of,
    join,
    of_batches,
    of_splits,
    of_states,
    takes,
    unpadded,
)
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Shares, TotalsFn
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.nll import is_of_density
from dlrun.nests.nest import map_nest
from dlrun.types import Batch, LanguageModel, Loss, Metric, Outputs, Spec, Split, SplitMetric


@dataclass(frozen=True)
class Collected:
    """A split's inputs, targets and outputs, on the CPU."""

    x: Tensor
    y: Tensor
    output: Tensor


@runtime_checkable
class ContiguousWindows(Protocol):
    """Rows of text, read from left to right with a memory."""

    def walk(self, rows: int) -> Iterator[tuple[bool, Batch]]:
        """Yield (fresh, batch), the next windows of `rows` rows.

        A `fresh` batch begins without memory.
        """


LOGITS = 256 << 20
"""Bytes of the logits of a chunk of text, at most."""

TOKENS = 1 << 14
"""Tokens of a chunk of text, at most: more go no faster, and leave a processor's caches."""


def batch_size_for(samples: int, spec: Spec) -> int:
    """Samples to evaluate at once, at most `samples`; of a text with many logits fewer.

    >>> batch_size_for(1000, Spec("language", input_shape=(128,), outputs=33278, vocabulary=33278))
    15
    """
    if (context := tokens_of_sample(spec)) is None:
        return samples
    tokens = min(TOKENS, LOGITS // (4 * spec.outputs))
    return max(1, min(samples, tokens // context))


def is_divisible(objective: Objective, metrics: Mapping[str, Metric], split: Split) -> bool:
    """Are the averages over a split the same for any number of samples at once?"""
    # the rows of a text have a memory, each of its own part
    of_batch = any(map(known.is_of_batch, (objective.loss, objective.model, *metrics.values())))
    return not of_batch and not isinstance(split, ContiguousWindows)


def evaluate(
    objective: Objective,
    metrics: Mapping[str, Metric],
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    totals_fn: TotalsFn | None = None,
    train: Split | None = None,
    shares: Shares | None = None,
) -> dict[str, float]:
    """The loss, the metrics and derived ones over a split.

    `totals_fn` may compute the totals of a chunk in another way than `totals`. A split of contiguous windows needs a
    model that carries a memory (`types.LanguageModel`) and has no bound; there `totals_fn` is not called. Metrics that
    compare with the training split are left out without `train`. Of several processes each computes its `shares`.
    """
    found: Iterable[Mapping[str, Total]]
    if isinstance(split, ContiguousWindows):
        found = _along(objective, metrics, split.walk(batch_size), device)
    else:
        found = _chunks(totals_fn or partial(totals, objective, metrics), split, batch_size, device, shares)
        found = shares.exchange(found) if shares else found
    sums, outputs, whole = Sums(), list[Outputs](), of_splits(metrics)
    states = {name: (metric, metric.begin()) for name, metric in of_states(metrics).items()}
    with evaluating(objective), averaging(objective.model, objective.views):
        for chunk in found:  # `found` is lazy: the chunks are computed here, in evaluation mode
            for name, total in chunk.items():
                if name != OUTPUTS:
                    sums.add(name, total)
                    continue
                # a CUDA graph writes the next chunk's over these
                part = Outputs(*(map_nest(torch.clone, nest) for nest in total))
                outputs += [part] if whole else []
                for metric, copy in states.values():
                    metric.add(copy, part)
        means = sums.means()
        if outputs:
            means |= _WholeSplit(objective, split, outputs, batch_size, device).values(whole, train)
        for name, (metric, copy) in states.items():
            means |= metric.values(name, copy)
    size, density = bytes_per_token(split), is_of_density(objective.loss)
    return means | known.derive(means, bytes_per_token=size, of_density=density)


def totals(objective: Objective, metrics: Mapping[str, Metric], batch: Batch) -> dict[str, Total]:
    """A batch's sums and counts of loss and metrics; where others ask for them also its `OUTPUTS`."""
    model = objective.model
    with objective.precision(), cache_forward(model):  # one forward pass for all of them
        found: dict[str, Total] = {"loss": loss_total(objective.loss, model, batch)}
        model, batch = restored(objective.target_scale, objective.loss, model, batch)
        for name, metric in of_batches(metrics).items():
            same = metric is known.nll and _is_nll(objective.loss)
            found[name] = found["loss"] if same else metric(model, batch)
        if ask_outputs(metrics):
            found[OUTPUTS] = unpadded(model(batch.x), batch)
    return found


def collect(
    objective: Objective,
    metrics: Mapping[str, Metric],
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    train: Split | None = None,
) -> tuple[dict[str, float], Collected]:
    """`evaluate`, with the model's outputs from the same pass.

    Not for contiguous windows: the outputs of a whole text are too many to keep.
    """
    seen: list[list[Tensor]] = []

    def totals_fn(batch: Batch) -> dict[str, Total]:
        # the caches are nested: the outer one gets every output that the inner one of `totals` asks for
        with cache_forward(objective.model):
            found = totals(objective, metrics, batch)
            with objective.precision():
                tensors = (*batch, objective.model(batch.x))
        seen.append([t.float().cpu() if t.is_floating_point() else t.cpu() for t in tensors])
        return found

    options: Any = {"batch_size": batch_size, "device": device, "train": train}
    means = evaluate(objective, metrics, split, totals_fn=totals_fn, **options)
    return means, Collected(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


@contextmanager
def evaluating(model: nn.Module | Objective) -> Iterator[None]:
    """Put a model, or an objective's, into evaluation mode, without gradients, and back."""
    modules = model.modules if isinstance(model, Objective) else [model]
    # of each module: some may stay in evaluation mode, such as frozen norms
    training = [(each, each.training) for module in modules for each in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for each, mode in training:
            each.training = mode


@dataclass(frozen=True)
class _WholeSplit:
    """A split's outputs, and how to get what else a metric of it asks for."""

    objective: Objective
    split: Split
    batches: Sequence[Outputs]
    size: int
    device: torch.device

    def values(self, metrics: Mapping[str, SplitMetric], train: Split | None) -> dict[str, float]:
        """The metrics by name; without `train` those that compare with it are left out."""
        metrics = {name: metric for name, metric in metrics.items() if train or not takes(metric, "train")}
        asked = {argument for metric in metrics.values() for argument in ("inputs", "train") if takes(metric, argument)}
        inputs = inputs_of(self.split, self.size, self.device) if "inputs" in asked else None
        reference = self._outputs(train) if train and "train" in asked else None
        means = {}
        for name, each in metrics.items():
            if isinstance(each, SplitFunction) and (predicted := each.predict(self.batches)):
                means[name] = compute(each.of_predictions, predicted)
            else:
                means[name] = compute(each, self._joined, inputs=inputs, train=reference)
        return means

    @cached_property
    def _joined(self) -> Outputs:
        return join(self.batches)

    def _outputs(self, split: Split) -> Outputs:
        def totals_fn(batch: Batch) -> dict[str, Total]:
            with self.objective.precision():
                own = self.objective
                model, batch = restored(own.target_scale, own.loss, own.model, batch)
                return {OUTPUTS: (model(batch.x), batch.y)}

        chunks = _chunks(totals_fn, split, self.size, self.device)
        return join([Outputs(*cast("Outputs", chunk[OUTPUTS])) for chunk in chunks])


def _along(
    objective: Objective, metrics: Mapping[str, Metric], walk: Iterable[tuple[bool, Batch]], device: torch.device
) -> Iterator[dict[str, Total]]:
    """Yield the totals of contiguous windows, with the model's memory."""
    model, memory = cast("LanguageModel", objective.model), None
    for fresh, (x, y) in walk:
        batch = Batch(x.to(device), y.to(device))
        with objective.precision():
            logits, memory = model.step(batch.x, None if fresh else memory)
        with cache_forward(objective.model) as cache:
            # a plain call would forget what came before the batch
            cache.prime(batch.x, logits)
            found = totals(objective, metrics, batch)
        yield found


def _is_nll(loss: Loss) -> bool:
    # to compute it twice would take as long as the model for a large vocabulary
    given = getattr(loss, "keywords", {})
    other = given.get("label_smoothing") or given.get("class_weights") is not None
    return getattr(loss, "func", loss) is cross_entropy and not other


def _chunks(
    totals_fn: TotalsFn, split: Split, size: int, device: torch.device, shares: Shares | None = None
) -> Iterator[Mapping[str, Total]]:
    """Yield the totals of a split, chunk by chunk; an exception has a note of the samples."""
    n = len(split)
    for number, start in enumerate(range(0, n, size)):
        if shares and not shares.takes(number):
            continue
        end, shapes = min(start + size, n), ""
        try:
            batch = split.gather(torch.arange(start, end, device=device)).to(device)
            shapes = f": {describe_batch(batch)}"
            found = totals_fn(batch)
        except Exception as error:
            error.add_note(f"samples {start} to {end - 1}{shapes}")
            raise
        yield found
