"""The metrics of a run's weights: on the splits that may be looked at, and on the test split, every read counted."""

from __future__ import annotations

from typing import Any

from dlrun.datasets.tensors.subset import take_spaced
from dlrun.engine.evaluation import Collected, collect, evaluate
from dlrun.runs.build import Built
from dlrun.storage.journal import Journal, closed
from dlrun.storage.rundir import RunDir
from dlrun.types import Split

WINDOWS = 1000
"""The windows of a training text that are evaluated where the configuration leaves their number open."""


def sampled(built: Built) -> Split:
    """Return what is evaluated of the training split."""
    few = WINDOWS if built.data.spec.task == "language" else None
    return take_spaced(built.data.train, built.evaluation.train_samples or few)


def evaluated(built: Built, *names: str) -> dict[str, float]:
    """Return the metrics of the named splits that there are, under the names `train/…` and `val/…`.

    Of the training split `evaluation.train_samples` are evaluated; without a number all, of a text 1,000 windows.
    """
    metrics: dict[str, float] = {}
    for name in names:
        split = sampled(built) if name == "train" else getattr(built.data, name)
        if split is None:
            continue
        prefix = "val" if name == "validation" else name
        training = built.training
        found = evaluate(
            training.objective,
            training.metrics,
            split,
            batch_size=training.evaluation_batch_size,
            device=training.device,
        )
        metrics |= {f"{prefix}/{metric}": value for metric, value in found.items()}
    return metrics


def read_if_due(built: Built, folder: RunDir, journal: Journal) -> tuple[dict[str, float], Collected | None]:
    """Read the test split once with the weights in the model, unless the configuration keeps it sealed."""
    if built.evaluation.test == "never" or built.data.test is None:
        return {}, None
    return _read(built, folder, journal)


def test_once(built: Built, folder: RunDir) -> dict[str, float]:
    """Read the test split of a run that has ended, with the weights in the model, into its summary."""
    with closed(Journal(folder.journal)) as journal:
        metrics = _read(built, folder, journal)[0]
    with folder.edit_summary() as summary:
        summary.metrics = {**summary.metrics, **metrics}
    return metrics


def _read(built: Built, folder: RunDir, journal: Journal) -> tuple[dict[str, float], Collected | None]:
    """Evaluate the test split; that it was read is written down before it is."""
    assert built.data.test is not None
    with folder.edit_summary() as summary:
        summary.test_reads += 1
    journal.event("test_read", reads=summary.test_reads)
    training, seen = built.training, None
    parts = training.objective, training.metrics, built.data.test
    options: Any = {"batch_size": training.evaluation_batch_size, "device": training.device}
    if built.data.spec.task == "language":
        # the logits of a whole text are not for keeping
        found = evaluate(*parts, **options)
    else:
        found, seen = collect(*parts, **options)
    return {f"test/{metric}": value for metric, value in found.items()}, seen
