"""The objective of R stacked runs: batches to losses [R], as a function of the blocks of weights.

A chain of dense layers is computed by batched products. Any other model runs under `vmap`: the same module, called
with all runs' weights at once. So do losses and metrics that need more than the model's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dlrun.engine.forward.totals import loss_total, wide
from dlrun.engine.forward.whole_split import OUTPUTS, of_batches, of_splits
from dlrun.engine.objective import Objective
from dlrun.losses.weighing import batch_mean
from dlrun.losses.weighted import Values
from dlrun.models.polynomial import Polynomial
from dlrun.stacked.dense import Chain, chain
from dlrun.stacked.losses import FROM_OUTPUTS, split_partial, stack_losses
from dlrun.stacked.weights import Layout, keep_rows, make_layout
from dlrun.types import Batch, Loss, Metric


class StackedObjective:
    """The mean losses of R runs on their batches.

    `weights` are blocks with a row for each run. `model` is one member's: its modules are used, its weights are not.
    `decays` says of each run's parameters whether weight decay acts on them. `ignores` is false if no target of a
    sample is `IGNORE_INDEX`: a mean then takes fewer operations.
    """

    def __init__(self, members: Sequence[Objective], *, ignores: bool = True) -> None:
        largest = max(members, key=_size)  # it has every weight that any run has
        self.model: nn.Module = largest.model
        params = [member.params for member in members]
        self.layout = make_layout(params)
        self.decays = [member.decay for member in members]
        self.weights = self.layout.stack(params)
        self._mask = _mask(params, self.layout)
        self._powers = _powers(members) if self._mask else None
        self._objective = largest
        named = {id(p): name for name, p in largest.model.named_parameters()}
        self._names = [named[id(p)] for p in largest.params]
        self._chain = self._make_chain()
        self._loss = stack_losses([member.loss for member in members], self.weights[0])
        self._caller = _Caller(largest.model)
        self._ignores = ignores

    @property
    def params(self) -> list[Tensor]:
        """The blocks of weights."""
        return self.weights

    @property
    def modules(self) -> list[nn.Module]:
        """The model alone: a loss with weights of its own trains alone."""
        return [self.model]

    @property
    def names(self) -> list[str]:
        return self._objective.names

    @property
    def waiting(self) -> frozenset[int]:
        """None: runs with parts that wait train alone."""
        return frozenset()

    @property
    def loss(self) -> Loss:
        """One member's loss."""
        return self._objective.loss

    def train(self) -> None:
        self.model.train()

    def buffers(self) -> Iterator[Tensor]:
        return self.model.buffers()

    def __call__(self, batch: Batch) -> Tensor:
        """The mean losses [R] on a batch [R, B, …]."""
        return self._losses(self.weights, batch)[0]

    def gradient(self, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """The losses [R], detached, the gradients as blocks, and the weights [R] of weighted means."""
        # leaves of the graph: blocks, so that a gradient is a block too
        weights = [block.detach().requires_grad_() for block in self.weights]
        losses, total = self._losses(weights, batch)
        return losses.detach(), list(torch.autograd.grad(losses.sum(), weights, materialize_grads=True)), total

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of all models."""
        return self._objective.precision()

    def keep(self, rows: Tensor) -> None:
        self.weights = keep_rows(self.weights, rows)
        self.decays = [self.decays[row] for row in rows.tolist()]
        if self._mask and self._powers is not None:
            self._mask, self._powers = keep_rows(self._mask, rows), self._powers.index_select(0, rows)
            self._chain = self._make_chain()
        if self._loss is not None:
            self._loss.keep(rows)

    def totals(self, metrics: Mapping[str, Metric], batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums (float64) and counts of loss and metrics, [R]."""
        with self.precision():
            # one forward pass for the loss and the metrics of outputs; other metrics run the models again
            whole = bool(of_splits(metrics))
            outputs = self._outputs(self.weights, batch.x) if self._loss or whole else None
            found = {"loss": self._loss_totals(outputs, batch)}
            for name, metric in of_batches(metrics).items():
                if outputs is not None and split_partial(metric)[0] in FROM_OUTPUTS:
                    found[name] = vmap(_of_outputs(metric))(outputs, *batch)
                else:
                    found[name] = self._per_run(self.weights, _with_tensor_count(metric), batch)
            if whole and outputs is not None:
                found[OUTPUTS] = (outputs, batch.y)
        return found

    def _make_chain(self) -> Chain | None:
        largest = self._objective
        return chain(largest.model, {id(p): place for place, p in enumerate(largest.params)}, self._powers)

    def _masked(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        # weights that a run lacks are zero and get no gradient: not by a product, for inf · 0 is NaN
        return weights if self._mask is None else [w.where(on, 0.0) for w, on in zip(weights, self._mask, strict=True)]

    def _losses(self, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor | None]:
        with self.precision():
            if self._loss is None:
                found = self._per_run(weights, partial(_weighed, self._objective.loss), batch)
                return found if isinstance(found, tuple) else (found, None)
            values = self._loss.values(self._outputs(weights, batch.x), batch.y)
            if batch.y.ndim == 2 and not self._ignores:
                return values.mean(1), None
            # a target that does not count has no part in the mean
            counts = self._loss.counts(batch.y)
            each = batch.y.ndim > 2 and not batch.y.is_floating_point()
            return values.flatten(1).sum(1) / counts, counts.float() if each else None

    def _outputs(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """All runs' outputs [R, B, …]."""
        if self._chain is not None:
            return self._chain(self.layout, self._masked(weights), x)
        named = dict(zip(self._names, self.layout.views(self._masked(weights)), strict=True))
        outputs: Tensor = vmap(lambda p, one: functional_call(self.model, p, (one,)))(named, x)
        return outputs

    def _per_run(self, weights: Sequence[Tensor], function: Callable[[nn.Module, Batch], Any], batch: Batch) -> Any:
        """`function` of each run's model and batch, under `vmap`."""
        params = self.layout.views(self._masked(weights))
        named = {f"model.{name}": p for name, p in zip(self._names, params, strict=True)}
        return vmap(lambda p, x, y: functional_call(self._caller, p, (function, Batch(x, y))))(named, *batch)

    def _loss_totals(self, outputs: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        if outputs is None or self._loss is None:
            found = self._per_run(
                self.weights, _with_tensor_count(lambda model, one: loss_total(self._objective.loss, model, one)), batch
            )
            return cast("tuple[Tensor, Tensor]", found)
        values = wide(self._loss.values(outputs, batch.y)).flatten(1)
        return values.sum(1), self._loss.counts(batch.y)


def _weighed(loss: Loss, model: nn.Module, batch: Batch) -> Values:
    # `vmap` returns tensors only: a weight where there is one
    mean, weight = batch_mean(loss(model, batch), batch, loss)
    return mean if weight is None else (mean, weight)


def _size(objective: Objective) -> int:
    return sum(p.numel() for p in objective.params)


def _mask(runs: Sequence[Sequence[Tensor]], shapes: Layout) -> list[Tensor] | None:
    """True for a run's own weights, False for larger runs'.

    None if all are equally large.
    """
    if all(tuple(p.shape) == shape for params in runs for p, shape in zip(params, shapes.shapes, strict=True)):
        return None
    return shapes.stack([[torch.ones_like(p, dtype=torch.bool) for p in params] for params in runs])


def _powers(members: Sequence[Objective]) -> Tensor | None:
    """The powers of each polynomial, [R, D + 1]; None of other models.

    Beyond a run's degree they are 0: its weights there are zero, and a power that overflows would make them NaN.
    """
    powers = [member.model.powers for member in members if type(member.model) is Polynomial]
    most = max(map(len, powers), default=0)
    return torch.stack([nn.functional.pad(own, (0, most - len(own))) for own in powers]) if powers else None


class _Caller(nn.Module):
    """Applies any function to its model."""

    # `functional_call` calls modules only

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Batch], Any], batch: Batch) -> Any:
        return function(self.model, batch)


class _Constant(nn.Module):
    """A model with given outputs."""

    # a metric asks a model for them: they are computed already

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self._outputs


def _of_outputs(metric: Metric) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    counted = _with_tensor_count(metric)
    return lambda output, x, y: counted(_Constant(output), Batch(x, y))


def _with_tensor_count(metric: Metric) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
    """The same metric with its count as a tensor."""
    # `vmap` returns nothing else

    def counted(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        total, count = metric(model, batch)
        # filled on the device: a copy from the host would wait for it, and cannot be recorded
        return wide(total), count if isinstance(count, Tensor) else total.new_full((), count)

    return counted
