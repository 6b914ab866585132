"""The objective of R runs: their batches → their losses [R], as a function of the blocks of their weights.

A model that is a chain of dense layers is computed by batched products; every other by `torch.func.functional_call`
under `vmap`, which is the same model called with each run's weights at once. Of losses that need the outputs alone
the sums are taken side by side; every other is asked under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dlrun import metrics as known
from dlrun.engine.evaluation import loss_total, wide
from dlrun.engine.objective import Objective
from dlrun.stacked.dense import chain
from dlrun.stacked.scores import score_of, split_partial
from dlrun.stacked.weights import Layout, keep_rows, layout
from dlrun.types import Batch, Metric

FROM_OUTPUTS = (known.accuracy, known.error, known.top_k, known.nll, known.mse)
"""Metrics that need the model's outputs alone."""


class StackedObjective:
    """The mean losses of R runs, each on its own batch; `weights` are theirs, blocks with a row for each.

    `model` is the first member's: its modules are computed with, its weights are not. `decays` says for each
    run which of its parameters weight decay acts on.
    """

    def __init__(self, members: Sequence[Objective]) -> None:
        first = max(members, key=_size)  # one that has all weights that any has
        self.model: nn.Module = first.model
        params = [member.params for member in members]
        self.layout = layout(params)
        self.decays = [member.decay for member in members]
        self.weights = self.layout.stacked(params)
        self._mask = _mask(params, self.layout)
        self._objective = first
        named = {id(p): name for name, p in first.model.named_parameters()}
        self._names = [named[id(p)] for p in first.params]
        self._chain = chain(first.model, {id(p): place for place, p in enumerate(first.params)})
        self._score = score_of([member.loss for member in members], self.weights[0])
        self._scored = _Scored(first.model)

    @property
    def params(self) -> list[Tensor]:
        """Return what is learned: the blocks."""
        return self.weights

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean loss of each run on its batch, [R]; x is [R, B, …] and y [R, B, …]."""
        return self._losses(self.weights, batch)

    def gradient(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the losses [R], detached, and the gradients of each run by its own weights, as blocks."""
        weights = [block.detach().requires_grad_() for block in self.weights]
        losses = self._losses(weights, batch)
        return losses.detach(), list(torch.autograd.grad(losses.sum(), weights, materialize_grads=True))

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the models compute."""
        return self._objective.precision()

    def keep(self, rows: Tensor) -> None:
        """Go on with these runs only."""
        self.weights = keep_rows(self.weights, rows)
        self.decays = [self.decays[row] for row in rows.tolist()]
        self._mask = self._mask and keep_rows(self._mask, rows)
        if self._score is not None:
            self._score.keep(rows)

    def totals(self, metrics: Mapping[str, Metric], batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return of the loss and of each metric the sum (float64) and the count, [R] each."""
        with self.precision():
            outputs = self._outputs(self.weights, batch.x) if self._score else None
            found = {"loss": self._loss_totals(outputs, batch)}
            for name, metric in metrics.items():
                if outputs is not None and split_partial(metric)[0] in FROM_OUTPUTS:
                    found[name] = vmap(_of_outputs(metric))(outputs, *batch)
                else:
                    found[name] = self._asked(self.weights, _counted(metric), batch)
        return found

    def _masked(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the weights; what a run does not have stays zero, for its gradient is zero."""
        return weights if self._mask is None else [w * on for w, on in zip(weights, self._mask, strict=True)]

    def _losses(self, weights: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of each run, [R], as a function of the weights."""
        with self.precision():
            if self._score is None:
                means: Tensor = self._asked(weights, lambda model, one: self._objective.loss(model, one).mean(), batch)
                return means
            values = self._score.values(self._outputs(weights, batch.x), batch.y)
            if batch.y.ndim == 2:
                return values.mean(1)
            return values.flatten(1).sum(1) / self._score.counts(batch.y)

    def _outputs(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return the outputs [R, B, …] of all runs."""
        if self._chain is not None:
            return self._chain(self.layout, self._masked(weights), x)
        named = dict(zip(self._names, self.layout.views(self._masked(weights)), strict=True))
        outputs: Tensor = vmap(lambda p, one: functional_call(self.model, p, (one,)))(named, x)
        return outputs

    def _asked(self, weights: Sequence[Tensor], question: Callable[[nn.Module, Batch], Any], batch: Batch) -> Any:
        """Return what `question` finds of every run's model and batch."""
        params = self.layout.views(self._masked(weights))
        named = {f"model.{name}": p for name, p in zip(self._names, params, strict=True)}
        return vmap(lambda p, x, y: functional_call(self._scored, p, (question, Batch(x, y))))(named, *batch)

    def _loss_totals(self, outputs: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        if outputs is None or self._score is None:
            found = self._asked(
                self.weights, _counted(lambda model, one: loss_total(self._objective, model, one)), batch
            )
            return cast("tuple[Tensor, Tensor]", found)
        values = wide(self._score.values(outputs, batch.y)).flatten(1)
        return values.sum(1), self._score.counts(batch.y)


def _size(objective: Objective) -> int:
    return sum(p.numel() for p in objective.params)


def _mask(runs: Sequence[Sequence[Tensor]], shapes: Layout) -> list[Tensor] | None:
    """Return blocks of 1 for each weight that a run has and 0 for one that only others have; None if all have all."""
    if all(tuple(p.shape) == shape for params in runs for p, shape in zip(params, shapes.shapes, strict=True)):
        return None
    return shapes.stacked([[torch.ones_like(p) for p in params] for params in runs])


class _Scored(nn.Module):
    """A model within a module whose call is any question about it, for `functional_call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, question: Callable[[nn.Module, Batch], Any], batch: Batch) -> Any:
        return question(self.model, batch)


class _Answered(nn.Module):
    """A model whose answer is known."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self._answer


def _of_outputs(metric: Metric) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    asked = _counted(metric)
    return lambda output, x, y: asked(_Answered(output), Batch(x, y))


def _counted(metric: Metric) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
    """Return a metric whose count is a tensor, as `vmap` wants it."""

    def asked(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        total, count = metric(model, batch)
        # filled on the device: a copy from the host would wait for it, and cannot be recorded
        return wide(total), count if isinstance(count, Tensor) else total.new_full((), count)

    return asked
