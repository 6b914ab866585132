"""The protocol of a way to a store: SQLite's tables, or MLflow's client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dlrun.tracking.content.journal_reader import Point


@dataclass(frozen=True)
class StoredRun:
    """A run in a store."""

    run_id: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)
    inputs: set[tuple[str, str]] = field(default_factory=set)  # the names and digests of data sets
    status: str = "RUNNING"
    deleted: bool = False
    # an earlier try to make it had no answer, and may yet have made another one
    uncertain: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was sent since it was made."""
        return self.status == "RUNNING" and not (self.params or self.metrics or self.inputs)


class Backend(Protocol):
    """A way to a store.

    Each call is a transaction; the same sent twice is stored once.
    """

    def experiment(self, name: str, artifacts: Path) -> str:
        """Find, restore or make an experiment; returns its id.

        A new one keeps its artifacts under `artifacts`, unless a server decides.
        """

    def create(self, experiment_id: str, *, start: int, tags: Mapping[str, str]) -> StoredRun:
        """Make a running run; `start` is in milliseconds since 1970."""

    def find(self, experiment_id: str, identifier: str) -> StoredRun | None:
        """The run with the tag `dlrun.id`, deleted or not.

        Of several, it is the one with progress; empty ones, which a lost answer to `create` leaves, are deleted.
        """

    def restore(self, run_id: str) -> None:
        """Take a run out of MLflow's trash."""

    def reopen(self, run_id: str) -> None:
        """Set a run's status to running."""

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        """Store points, params and tags, the tags last; remove the points that some replace, if the store can."""

    def add_inputs(self, experiment_id: str, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Store a run's data sets, each as MLflow's fields.

        The field `name` is `data/split`.
        """

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run as they are now."""

    def tagged(self, experiment_id: str, name: str, sweep: str) -> dict[str, str]:
        """The values of a tag of a sweep's jobs, by the run's id."""

    def untag(self, run_id: str, name: str) -> None:
        """Delete a tag, if it is there."""

    def history(self, run_id: str, name: str) -> set[tuple[int, float]]:
        """The steps and values of a curve."""

    def close(self, run_id: str, status: str, end: int) -> None:
        """Set a run's status and end, in milliseconds since 1970."""

    def transaction(self) -> AbstractContextManager[None]:
        """Make the block one transaction, if the store can.

        Only for runs that the store does not have: a point that it has may undo the whole block.
        """


# the tag of a data set's split
CONTEXT = "mlflow.data.context"
