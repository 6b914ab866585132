"""One run in MLflow: what the store has of it, and everything that is sent to it, in few calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlrun.tracking.describe import KEY, digest, fit
from dlrun.tracking.points import PORTION, Point
from dlrun.tracking.where import has_server

if TYPE_CHECKING:
    from dlrun.tracking.connection import Connection

PROGRESS = "dlrun.progress"
NOTE = "mlflow.note.content"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}
# MLflow takes a hundred params and a hundred tags in one call, and a thousand things in all
MANY = 100

T = TypeVar("T")


@dataclass(frozen=True)
class MlflowRun:
    """A run of a store; `params`, `tags`, `metrics` and `inputs` are what the store has, as far as it is known here."""

    connection: Connection
    experiment_id: str
    run_id: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)
    inputs: set[tuple[str, str]] = field(default_factory=set)

    @property
    def client(self) -> Any:
        """Return MLflow's client."""
        return self.connection.client

    @property
    def progress(self) -> int:
        """Return the byte of the journal up to which the store has it."""
        return int(self.tags.get(PROGRESS, 0))

    def send(
        self,
        points: Sequence[Point] = (),
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        end: int | None = None,
    ) -> None:
        """Send points, and of the params and tags those that the store does not have.

        The last call carries the progress `end`. What is sent twice is stored once.
        """
        from mlflow.entities import Metric, Param, RunTag

        new_params = {name: value for name, value in (params or {}).items() if name not in self.params}
        new_tags = {name: value for name, value in (tags or {}).items() if self.tags.get(name) != value}
        if end is not None and end != self.progress:
            new_tags[PROGRESS] = str(end)  # the last: a call stores its tags after its points
        for some_points, some_params, some_tags in _calls(points, new_params, new_tags):
            self.client.log_batch(
                self.run_id,
                metrics=[Metric(fit(p.name, KEY), p.value, p.time, p.step) for p in some_points],
                params=[Param(*item) for item in some_params],
                tags=[RunTag(*item) for item in some_tags],
                synchronous=True,
            )
        self.params.update(new_params)
        self.tags.update(new_tags)
        self.metrics.update(fit(point.name, KEY) for point in points)

    def note(self, text: str) -> dict[str, str]:
        """Return the tags that set the note of the run's page: none if a person has written into it."""
        there = self.tags.get(NOTE)
        if there == text:
            return {}
        if there is not None:
            now = self.client.get_run(self.run_id).data.tags
            if digest(now.get(NOTE, "")) != now.get("dlrun.note"):
                return {}
        return noted(text)

    def send_datasets(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Show which data the run was trained, chosen and tested on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = "mlflow.data.context"
        new = [fields for fields in datasets if (fields["name"], fields["digest"]) not in self.inputs]
        inputs = [
            DatasetInput(Dataset(**fields), [InputTag(context, fields["name"].rpartition("/")[2])]) for fields in new
        ]
        if inputs:
            self.client.log_inputs(self.run_id, inputs)
            self.inputs.update((fields["name"], fields["digest"]) for fields in new)

    def lacking(self, points: Sequence[Point]) -> list[Point]:
        """Return those of some last points that the store does not have, at whatever time they were sent."""
        return [p for p in points if fit(p.name, KEY) not in self.metrics or not self._has(p)]

    def _has(self, point: Point) -> bool:
        history = self.client.get_metric_history(self.run_id, fit(point.name, KEY))
        return any((there.step, there.value) == (point.step, point.value) for there in history)

    def send_text(self, name: str, text: str) -> None:
        """Store a text that the run logged as an artifact."""
        self.client.log_text(self.run_id, text, f"{fit(name, KEY)}.txt")

    def send_file(self, file: Path, folder: str) -> None:
        """Store a file as an artifact; a file of the same name is replaced."""
        if has_server(self.connection.uri):
            self.client.log_artifact(self.run_id, str(file), folder)
        else:
            self._repository().log_artifact(str(file), folder)

    def send_folder(self, files: Path, folder: str | None) -> None:
        """Store all files of a folder as artifacts."""
        if has_server(self.connection.uri):
            self.client.log_artifacts(self.run_id, str(files), folder)
        else:
            self._repository().log_artifacts(str(files), folder)

    def close(self, status: str, end: int) -> None:
        """Set the final status and the time at which the run ended, in milliseconds."""
        self.client.set_terminated(self.run_id, status=STATUS[status], end_time=end)

    def _repository(self) -> Any:
        # the client would ask the store for the run again, to learn where its artifacts are
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self.artifact_uri, tracking_uri=self.connection.uri)


def noted(text: str) -> dict[str, str]:
    """Return the tags of a note; the digest tells later whether a person has changed it."""
    return {"dlrun.note": digest(text), NOTE: text}


def _calls(
    points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[Sequence[Point], Sequence[tuple[str, str]], Sequence[tuple[str, str]]]]:
    """Yield what goes into each call; the last of the tags go with the last of the points."""
    metrics = list(_batched(points, PORTION))
    values, last = list(_batched(list(params.items()), MANY)), list(_batched(list(tags.items()), MANY))
    calls = max(len(metrics), len(values), len(last))
    yield from zip_longest(metrics, values, [[]] * (calls - len(last)) + last, fillvalue=[])


def _batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
