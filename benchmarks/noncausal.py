"""A transformer in the non-causal formulation (one pass per token) and in the causal one (one pass).

With a causal model inside, both are the same function; their values are compared first.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks import report
from benchmarks.alternation import alternate, cost, ratios, spread
from benchmarks.report import Figure, Section
from dlrun.engine.objective import Objective
from dlrun.execution.flops import count_flops
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.noncausal import noncausal
from dlrun.types import Batch

VOCABULARY = 65
BATCH = 8
NEAR = 1e-5  # allowed difference of the logits: the passes multiply in another order


class Causal(torch.nn.Module):
    """The model inside a `NonCausal`, run once for all tokens."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits[..., :VOCABULARY]


def both(context: int) -> tuple[Objective, Objective, Batch]:
    """Both formulations of one model, with equal weights, and a batch."""
    torch.manual_seed(0)
    slow = noncausal((context,), VOCABULARY, size="micro", causal=True)
    tokens = torch.randint(VOCABULARY, (BATCH, context + 1))
    batch = Batch(tokens[:, :-1], tokens[:, 1:].contiguous())
    return Objective(slow, cross_entropy), Objective(Causal(slow.inner), cross_entropy), batch


def step(objective: Objective, batch: Batch) -> Callable[[], float]:
    """A program of one forward and backward pass; it returns its CPU seconds."""

    def program() -> float:
        return cost(lambda: torch.autograd.grad(objective(batch), objective.params)).cpu

    return program


def measure(*, quick: bool = False, repeats: int | None = None) -> Section:
    """The difference of the logits and the ratio of a training step's cost, for windows of T tokens."""
    load, figures = report.load(), []
    for context in (4, 8) if quick else (8, 16, 32, 64):
        slow, fast, batch = both(context)
        with torch.no_grad():
            distance = (slow.model(batch.x) - fast.model(batch.x)).abs().max().item()
        flops = count_flops(slow, batch) / count_flops(fast, batch)
        programs = {"causal": step(fast, batch), "noncausal": step(slow, batch)}
        times = alternate(programs, repeats or (2 if quick else 7))
        dearer = ratios(times["noncausal"], times["causal"])
        figures += _figures(context, distance, flops, dearer)
    return Section(
        "noncausal", "a pass for each token, beside one for all", "python -m benchmarks noncausal", figures, NOTES, load
    )


def _figures(context: int, distance: float, flops: float, dearer: list[float]) -> list[Figure]:
    label = f"T = {context}"
    near = 0.75 * context <= median(dearer) <= 1.5 * context
    return [
        Figure(f"{label}: largest difference of a logit", f"{distance:.1e}", f"≤ {NEAR:.0e}", distance <= NEAR),
        Figure(f"{label}: operations, non-causal / causal", f"{flops:.2f}", f"{context}", round(flops, 6) == context),
        Figure(f"{label}: processor time, non-causal / causal", spread(dearer, ".1f"), f"about {context}", near),
    ]


NOTES = (
    f"The transformer of model=noncausal model.size=micro model.causal=true, {VOCABULARY} tokens, a batch of {BATCH}"
    " windows of T; a forward and a backward pass. The non-causal formulation (The Little Book of Deep Learning, 3.2)"
    " reads x_1 … x_t, ∅, …, ∅ for each t; the causal one reads the window once."
)
