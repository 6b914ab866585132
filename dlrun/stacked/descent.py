"""One step of gradient descent for R stacked runs.

A run's loss depends on its own row of weights alone. So the gradient of the sum of all losses is each run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from dlrun.optimizers.descent import Descent
from dlrun.stacked.objective import StackedObjective
from dlrun.stacked.rules import stack_rules
from dlrun.stacked.weights import Layout, column
from dlrun.types import IGNORE_INDEX, Batch, Update


class StackedDescent:
    """`optimizers.descent.Descent` of R runs: losses, norms, rates [R]."""

    def __init__(self, members: Sequence[Descent], objective: StackedObjective) -> None:
        weights = objective.weights[0]
        self.rule = stack_rules(
            [member.rule for member in members], objective.weights, objective.decays, objective.layout
        )
        # rates are double, as a run alone computes them on the host; MPS has no double
        double = torch.float32 if weights.device.type == "mps" else torch.float64
        self.lr = torch.tensor([member.lr for member in members], dtype=double, device=weights.device)
        self.accumulate = members[0].accumulate
        self.measure_norms = members[0].measure_norms
        clips = [member.clip for member in members]
        # a run without a bound clips at infinity, beside runs that have one
        bounds = [inf if clip is None else clip for clip in clips]
        self._bound = None if all(clip is None for clip in clips) else column(bounds, weights)

    def step(self, objective: StackedObjective, batch: Batch, lr: Tensor) -> Update:
        """Change the weights in place, at the rates [R]."""
        loss, grads, weight = self._gradient(objective, batch)
        norm, each, clipped = None, None, None
        if self._bound is not None or self.measure_norms:
            norm = _norm(grads)
            each = _parameter_norms(grads, objective.layout) if self.measure_norms else None
            if self._bound is not None:
                # 1e-6 as in `torch.nn.utils.clip_grad_norm_`
                share = torch.clamp(self._bound / (norm[:, None] + 1e-6), max=1.0)
                grads = [grad * share for grad in grads]
                clipped = _norm(grads) if self.measure_norms else None
        self.rule.update(objective.weights, grads, lr[:, None].to(grads[0].dtype))
        return Update(loss, norm, weight, each, clipped)

    def keep(self, rows: Tensor) -> None:
        self.lr = self.lr.index_select(0, rows)
        self._bound = self._bound if self._bound is None else self._bound.index_select(0, rows)
        self.rule.keep(rows)

    def _gradient(self, objective: StackedObjective, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Losses [R] and gradients, accumulated over chunks, and the batch's weights [R], as of a run alone."""
        if self.accumulate == 1:
            return objective.gradient(batch)
        parts = min(self.accumulate, batch.x.shape[1])
        cut = zip(*(torch.tensor_split(t, parts, dim=1) for t in batch), strict=True)
        chunks = [Batch(*tensors) for tensors in cut]
        loss, grads = torch.zeros_like(self.lr), list[Tensor]()
        for chunk, share in zip(chunks, _shares(chunks), strict=True):
            part, found, _ = objective.gradient(chunk)
            # the mean over a chunk without a target is no number
            part, found = part.where(share > 0, 0.0), [grad.where(share[:, None] > 0, 0.0) for grad in found]
            loss, weighed = loss + part * share, [grad * share[:, None].to(grad.dtype) for grad in found]
            grads = [a + b for a, b in zip(grads, weighed, strict=True)] if grads else weighed
        y = batch.y
        each = y.ndim > 2 and not y.is_floating_point()
        return loss, grads, (y != IGNORE_INDEX).flatten(1).sum(1).float() if each else None


def _norm(grads: Sequence[Tensor]) -> Tensor:
    """The norm of each run's whole gradient, [R]."""
    norms = [torch.linalg.vector_norm(grad, dim=1) for grad in grads]
    return norms[0] if len(norms) == 1 else torch.stack(norms).square().sum(0).sqrt()


def _parameter_norms(grads: Sequence[Tensor], layout: Layout) -> Tensor:
    """The norm of each parameter's gradient, [P, R]."""
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in layout.parts(grads)])


def _shares(chunks: Sequence[Batch]) -> list[Tensor]:
    """Each chunk's share of a run's samples or tokens, [R]."""
    # values count by sample, classes and tokens by those that are predicted, as in `optimizers.descent`
    if chunks[0].y.is_floating_point():
        counts = torch.stack([torch.full((len(y),), y.shape[1], device=y.device) for _, y in chunks])
    else:
        counts = torch.stack([(y != IGNORE_INDEX).flatten(1).sum(1) for _, y in chunks])
    return list((counts / counts.sum(0)).unbind())
