"""One run in MLflow: what the store has of it, and everything that is sent to it, in few calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from dlrun.tracking.describe import KEY, digest, fit
from dlrun.tracking.journal_reader import PORTION, Point
from dlrun.tracking.mlflow.artifacts import Artifacts
from dlrun.tracking.mlflow.backend import Backend, Found

PROGRESS = "dlrun.progress"
NOTE = "mlflow.note.content"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}
# MLflow takes a hundred params and a hundred tags in one call, and a thousand things in all
MANY = 100

T = TypeVar("T")


@dataclass(frozen=True)
class MlflowRun:
    """A run of the store at `uri`; `there` is what the store has of it, as far as it is known here."""

    backend: Backend
    uri: str
    experiment_id: str
    there: Found

    @property
    def run_id(self) -> str:
        """Return MLflow's id of the run."""
        return self.there.run_id

    @property
    def params(self) -> dict[str, str]:
        """Return the params that the store has."""
        return self.there.params

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags that the store has, unless a person has changed one since."""
        return self.there.tags

    @property
    def progress(self) -> int:
        """Return the byte of the journal up to which the store has it."""
        return int(self.tags.get(PROGRESS, 0))

    @property
    def artifacts(self) -> Artifacts:
        """Return where the files of the run go."""
        return Artifacts(self.uri, self.run_id, self.there.artifact_uri)

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
        new_params = {name: value for name, value in (params or {}).items() if name not in self.params}
        new_tags = {name: value for name, value in (tags or {}).items() if self.tags.get(name) != value}
        if end is not None and end != self.progress:
            new_tags[PROGRESS] = str(end)  # the last: a call stores its tags after its points
        fitting = [point._replace(name=fit(point.name, KEY)) for point in points]
        for some_points, some_params, some_tags in _calls(fitting, new_params, new_tags):
            self.backend.log(self.run_id, some_points, some_params, some_tags)
        self.params.update(new_params)
        self.tags.update(new_tags)
        self.there.metrics.update(point.name for point in fitting)

    def note(self, text: str) -> dict[str, str]:
        """Return the tags that set the note of the run's page: none if a person has written into it."""
        there = self.tags.get(NOTE)
        if there == text:
            return {}
        if there is not None:
            now = self.backend.tags(self.run_id)
            if digest(now.get(NOTE, "")) != now.get("dlrun.note"):
                return {}
        return noted(text)

    def send_datasets(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Show which data the run was trained, chosen and tested on."""
        new = [fields for fields in datasets if (fields["name"], fields["digest"]) not in self.there.inputs]
        if new:
            self.backend.add_inputs(self.experiment_id, self.run_id, new)
            self.there.inputs.update((fields["name"], fields["digest"]) for fields in new)

    def lacking(self, points: Sequence[Point]) -> list[Point]:
        """Return those of some last points that the store does not have, at whatever time they were sent."""
        return [p for p in points if fit(p.name, KEY) not in self.there.metrics or not self._has(p)]

    def _has(self, point: Point) -> bool:
        return (point.step, point.value) in self.backend.history(self.run_id, fit(point.name, KEY))

    def send_text(self, name: str, text: str) -> None:
        """Store a text that the run logged as an artifact."""
        self.artifacts.send_text(text, f"{fit(name, KEY)}.txt")

    def send_file(self, file: Path, folder: str) -> None:
        """Store a file as an artifact; a file of the same name is replaced."""
        self.artifacts.send_file(file, folder)

    def send_folder(self, files: Path, folder: str | None) -> None:
        """Store all files of a folder as artifacts."""
        self.artifacts.send_folder(files, folder)

    def close(self, status: str, end: int) -> None:
        """Set the final status and the time at which the run ended, in milliseconds."""
        self.backend.close(self.run_id, STATUS[status], end)


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
