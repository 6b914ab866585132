"""The metrics of a run's weights on each split; every read of the test split is counted."""

from __future__ import annotations

from functools import partial
from typing import Any

from dlrun.datasets.tensors.subset import take_spaced
from dlrun.engine.evaluation import Collected, collect
from dlrun.engine.failures.explaining import explaining_evaluation, parts_of
from dlrun.engine.reading.streams import StreamSplit
from dlrun.nests.shapes import is_shape
from dlrun.randomness import EVALUATION, key
from dlrun.runs.build import Built
from dlrun.storage.journal import Journal, count_test_reads, open_journal
from dlrun.storage.lookup import sweep_of
from dlrun.storage.rundir import RunDir
from dlrun.types import Split

WINDOWS = 1000
"""Windows of a training text to evaluate, or samples of a stream, without `evaluation.train_samples`."""


def training_sample(built: Built) -> Split:
    """The part of the training split to evaluate, evenly spaced; of a stream its first samples."""
    if isinstance(built.data.train, StreamSplit):
        return built.data.train.first(built.evaluation.train_samples or WINDOWS)
    few = WINDOWS if built.data.spec.task == "language" else None
    return take_spaced(built.data.train, built.evaluation.train_samples or few)


def evaluate_splits(built: Built, *names: str) -> dict[str, float]:
    """Evaluate the splits "train" or "validation".

    The metrics are called `train/…` and `val/…`.
    """
    metrics: dict[str, float] = {}
    _seed(built)
    for name in names:
        split = training_sample(built) if name == "train" else getattr(built.data, name)
        if split is None:
            continue
        prefix = "val" if name == "validation" else name
        training = built.training
        with explaining_evaluation(f"The evaluation of the {name} split", parts_of(training)):
            shares = training.ranks.score(name, training.objective) if training.ranks else None
            train = training.batches.split if name != "train" else None
            found = training.evaluate(split, training.plan.steps, train=train, shares=shares)
        metrics |= {f"{prefix}/{metric}": value for metric, value in found.items()}
    return metrics


def _seed(built: Built) -> None:
    # parts may draw from Python's and numpy's generators: the same numbers whenever it is asked
    if own := built.training.own:
        own.seed(key(built.training.seed, EVALUATION))


def read_test_if_due(built: Built, folder: RunDir, journal: Journal) -> tuple[dict[str, float], Collected | None]:
    """Evaluate the test split, unless `evaluation.test` is never."""
    if built.evaluation.test == "never" or built.data.test is None:
        return {}, None
    return _read(built, folder, journal)


def test_once(built: Built, folder: RunDir, *, reader: str | None = None, by_hand: bool = False) -> dict[str, float]:
    """Evaluate the test split of an ended run.

    The model has its weights already. The summary gets the metrics. `reader` is the id of the sweep that has selected
    the run, or a job of which was asked for `by_hand`; reads for another sweep than its own are counted apart.
    """
    with folder.edit_summary() as summary:
        # a summary that was lost counts too few
        summary.test_reads = max(summary.test_reads, count_test_reads(folder.journal))
    with open_journal(folder.journal) as journal:
        metrics = _read(built, folder, journal, reader, by_hand=by_hand)[0]
    with folder.edit_summary() as summary:
        summary.metrics = {**summary.metrics, **metrics}
    return metrics


def _read(
    built: Built, folder: RunDir, journal: Journal, reader: str | None = None, *, by_hand: bool = False
) -> tuple[dict[str, float], Collected | None]:
    assert built.data.test is not None
    with folder.edit_summary() as summary:
        # counted before the read, so that a crash hides none
        summary.test_reads += 1
        own = sweep_of(folder)
        if reader and (own is None or own.id != reader):
            apart = summary.test_reads_for
            summary.test_reads_for = {**apart, reader: apart.get(reader, 0) + 1}
    asked = {"sweep": reader, **({"by_hand": True} if by_hand else {})} if reader else {}
    journal.event("test_read", reads=summary.test_reads, **asked)
    _seed(built)
    training, seen = built.training, None
    split, step, options = built.data.test, training.plan.steps, {"train": training.batches.split}
    with explaining_evaluation("The evaluation of the test split", parts_of(training)):
        # the figures want logits of classes, embeddings or values; those of a whole text would not fit into memory
        task, metrics = built.data.spec.task, training.metrics.keys()
        one = is_shape(built.data.spec.input_shape) and None not in built.data.spec.input_shape
        of_metrics = {"classification": {"accuracy", "error"}, "regression": {"mse"}}
        if one and (task == "embedding" or of_metrics.get(task, set()) & metrics):
            collecting: Any = partial(collect, training.objective, training.metrics, split, device=training.device)
            found, seen = training.fitting(lambda size: collecting(batch_size=size, **options), split, step)
        else:
            found = training.evaluate(split, step, **options)
    return {f"test/{metric}": value for metric, value in found.items()}, seen
