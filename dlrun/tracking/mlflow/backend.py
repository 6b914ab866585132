"""What is asked of a store, whichever way leads to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dlrun.tracking.journal_reader import Point


@dataclass(frozen=True)
class StoredRun:
    """A run as a store has it; `inputs` are the names and digests of its data sets."""

    run_id: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)
    inputs: set[tuple[str, str]] = field(default_factory=set)
    running: bool = True


class Backend(Protocol):
    """A way to a store. What is sent twice is stored once; a call that raises has stored nothing or all of it."""

    def experiment(self, name: str, artifacts: Path) -> str:
        """Return the id of an experiment, made if it is missing and brought back if it was deleted.

        A new one keeps its artifacts under `artifacts`, unless a server decides.
        """

    def create(self, experiment_id: str, *, start: int, tags: Mapping[str, str]) -> StoredRun:
        """Make a run that is RUNNING since `start`, in milliseconds."""

    def find(self, experiment_id: str, identifier: str) -> StoredRun | None:
        """Return the run that carries the tag `dlrun.id`, a deleted one too; `running` is false of that."""

    def reopen(self, run_id: str) -> None:
        """Have a run be RUNNING, and there, again."""

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        """Store points, params and tags, the tags last."""

    def add_inputs(self, experiment_id: str, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Store which data a run used; each has MLflow's fields of a data set, and is named `data/split`."""

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a run as they are now."""

    def history(self, run_id: str, name: str) -> set[tuple[int, float]]:
        """Return the steps and values of a curve."""

    def close(self, run_id: str, status: str, end: int) -> None:
        """Set the final status and the time at which the run ended, in milliseconds."""

    def together(self) -> AbstractContextManager[None]:
        """Have the calls of the block be one transaction, where the store can do that.

        Only for what cannot be there yet: points that are may undo the whole of it.
        """


CONTEXT = "mlflow.data.context"
"""The tag that says what a run used a data set for."""
