"""The run in MLflow: found by its tag or made, and everything that is sent to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dlrun.tracking.describe import KEY, digest, fit
from dlrun.tracking.points import PORTION, Point
from dlrun.tracking.where import has_server

PROGRESS = "dlrun.progress"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}
# MLflow takes a hundred params or tags in one call
MANY = 100

T = TypeVar("T")


@dataclass(frozen=True)
class MlflowRun:
    """One run of a store, as it was found: `params` and `tags` are what the store had then."""

    client: Any
    experiment_id: str
    run_id: str
    params: dict[str, str]
    tags: dict[str, str]

    @property
    def progress(self) -> int:
        """Return the byte of the journal up to which the store has it."""
        return int(self.tags.get(PROGRESS, 0))

    def send_points(self, points: Sequence[Point], end: int) -> None:
        """Send points; the call that completes them carries the progress too. Sent twice, they are stored once."""
        from mlflow.entities import Metric, RunTag

        metrics = [Metric(fit(p.name, KEY), p.value, p.time, p.step) for p in points]
        portions = list(_batched(metrics, PORTION)) or [[]]
        for number, portion in enumerate(portions, 1):
            tags = [RunTag(PROGRESS, str(end))] if number == len(portions) else []
            self.client.log_batch(self.run_id, metrics=portion, tags=tags, synchronous=True)

    def send_params(self, params: Mapping[str, str]) -> None:
        """Send the params that the store does not have yet."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in params.items() if name not in self.params]
        for portion in _batched(new, MANY):
            self.client.log_batch(self.run_id, params=portion, synchronous=True)

    def send_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, those that are there already to their new value."""
        from mlflow.entities import RunTag

        for portion in _batched([RunTag(name, value) for name, value in tags.items()], MANY):
            self.client.log_batch(self.run_id, tags=portion, synchronous=True)

    def send_note(self, note: str) -> None:
        """Set the note of the run's page, unless a person has written into it."""
        there = self.client.get_run(self.run_id).data.tags
        before = there.get("mlflow.note.content")
        if before is None or digest(before) == there.get("dlrun.note"):
            self.send_tags({"dlrun.note": digest(note), "mlflow.note.content": note})

    def send_datasets(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Show which data the run was trained, chosen and tested on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = "mlflow.data.context"
        inputs = [
            DatasetInput(Dataset(**fields), [InputTag(context, fields["name"].rpartition("/")[2])])
            for fields in datasets
        ]
        if inputs:
            self.client.log_inputs(self.run_id, inputs)

    def send_finals(self, metrics: Mapping[str, float], *, step: int, time: int) -> None:
        """Send values that have no curve, unless the store has them at that step."""
        for name, value in metrics.items():
            known = {(point.step, point.value) for point in self.client.get_metric_history(self.run_id, name)}
            if (step, value) not in known:
                self.client.log_metric(self.run_id, name, value, timestamp=time, step=step, synchronous=True)

    def send_text(self, name: str, text: str) -> None:
        """Store a text that the run logged as an artifact."""
        self.client.log_text(self.run_id, text, f"texts/{fit(name, KEY)}.txt")

    def send_files(self, files: Sequence[Path], folder: str) -> None:
        """Store files as artifacts; a file of the same name is replaced."""
        for file in files:
            if file.is_file():
                self.client.log_artifact(self.run_id, str(file), folder)

    def close(self, status: str, end: int) -> None:
        """Set the final status and the time at which the run ended, in milliseconds."""
        self.client.set_terminated(self.run_id, status=STATUS[status], end_time=end)


def open_run(uri: str, experiment: str, *, artifacts: Path, tags: Mapping[str, str], start: int) -> MlflowRun:
    """Return the run that carries the tag `dlrun.id`, made if it is missing, and RUNNING again."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, experiment, None if has_server(uri) else artifacts)
    found = client.search_runs(
        [experiment_id], f"tags.`dlrun.id` = '{tags['dlrun.id']}'", run_view_type=ViewType.ALL, max_results=1
    )
    if found:
        run = found[0]
        if run.info.lifecycle_stage == "deleted":
            client.restore_run(run.info.run_id)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
    else:
        run = client.create_run(experiment_id, start_time=start, tags=dict(tags))
    return MlflowRun(client, experiment_id, run.info.run_id, dict(run.data.params), dict(run.data.tags))


def _experiment(client: Any, name: str, artifacts: Path | None) -> str:
    """Return the id of an experiment, made if it is missing and brought back if it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = (artifacts / fit(name, 100).replace("/", "_")).as_uri() if artifacts else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another run was first
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
