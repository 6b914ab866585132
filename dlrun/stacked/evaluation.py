"""The exact evaluation of R stacked runs: sums and counts in float64, divided once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from dlrun import metrics as known
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.engine.evaluation import evaluating
from dlrun.engine.forward.whole_split import OUTPUTS, compute, inputs_of, join, of_splits, takes
from dlrun.engine.protocols import TotalsFn
from dlrun.losses.nll import is_of_density
from dlrun.metrics import is_of_batch
from dlrun.stacked.batches import SampleTable, sample_table
from dlrun.stacked.objective import StackedObjective
from dlrun.types import Batch, Metric, Outputs, Split, SplitMetric

VALUES = 1 << 24
"""Input values of a chunk, of all runs: larger chunks take memory and are no faster."""


class StackedSplits:
    """The splits of R runs, of equally many samples."""

    def __init__(self, splits: Sequence[Split], device: torch.device) -> None:
        self._splits, self._device = list(splits), device
        self._table: SampleTable | None = sample_table(self._splits, device)

    def keep(self, rows: Tensor) -> None:
        """Keep these runs only."""
        self._splits = [self._splits[row] for row in rows.tolist()]
        self._table = sample_table(self._splits, self._device)

    def chunks(self, size: int, *, exactly: bool = False) -> Iterator[Batch]:
        """Yield batches of at most `size` samples, in order; `exactly` so many but for the last.

        So many are of each run: x [R, B, …], y [R, B, …].
        """
        n = len(self._splits[0])
        if not exactly:
            # by the size of one sample of every run
            values = self._at(torch.arange(1, device=self._device)).x.numel()
            size = max(1, min(size, VALUES // max(1, values)))
        for start in range(0, n, size):
            yield self._at(torch.arange(start, min(start + size, n), device=self._device))

    def inputs(self, row: int, size: int) -> Tensor:
        """The inputs of a run's whole split."""
        found: Tensor = inputs_of(self._splits[row], size, self._device)
        return found

    def bytes_per_token(self) -> list[float | None]:
        """Mean bytes of a token in each run's text."""
        return [bytes_per_token(split) for split in self._splits]

    def _at(self, index: Tensor) -> Batch:
        if self._table is not None:
            return self._table.rows(index)
        # splits that are no tensors on the device are gathered one by one, and moved
        batches = [split.gather(index) for split in self._splits]
        return Batch(*(torch.stack(parts).to(self._device) for parts in zip(*batches, strict=True)))


def evaluate(
    objective: StackedObjective,
    metrics: Mapping[str, Metric],
    splits: StackedSplits,
    *,
    batch_size: int,
    totals_fn: TotalsFn | None = None,
) -> list[dict[str, float]]:
    """Each run's loss, metrics and derived ones.

    `totals_fn` may compute the sums and counts [R] of a chunk in another way than the objective's `totals`.
    """
    totals_fn = totals_fn or partial(objective.totals, metrics)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int | Tensor] = {}
    outputs: list[Outputs] = []
    # values that compare the samples of a batch are others in smaller ones
    of_batches = any(map(is_of_batch, (objective.model, objective.loss, *metrics.values())))
    with evaluating(objective.model):
        for batch in splits.chunks(batch_size, exactly=of_batches):
            for name, (total, count) in totals_fn(batch).items():
                if name == OUTPUTS and isinstance(count, Tensor):
                    outputs.append(Outputs(total.clone(), count.clone()))
                    continue
                # not in place: a CUDA graph writes the next totals over these
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + count
    # the only read from the device
    means = {name: (sums[name] / counts[name]).tolist() for name in sums}
    runs = [dict(zip(means, values, strict=True)) for values in zip(*means.values(), strict=True)]
    if outputs:
        _add_of_splits(runs, of_splits(metrics), outputs, lambda row: splits.inputs(row, batch_size))
    sizes, density = splits.bytes_per_token(), is_of_density(objective.loss)
    return [
        run | known.derive(run, bytes_per_token=size, of_density=density) for run, size in zip(runs, sizes, strict=True)
    ]


def _add_of_splits(
    runs: Sequence[dict[str, float]],
    metrics: Mapping[str, SplitMetric],
    outputs: Sequence[Outputs],
    inputs: Callable[[int], Tensor],
) -> None:
    """Add to each run's metrics those of a whole split, of outputs [R, B, …] a chunk."""
    asked = any(takes(metric, "inputs") for metric in metrics.values())
    for row, run in enumerate(runs):
        found = join([Outputs(part.outputs[row], part.y[row]) for part in outputs])
        given = inputs(row) if asked else None
        run.update({name: compute(metric, found, inputs=given) for name, metric in metrics.items()})
