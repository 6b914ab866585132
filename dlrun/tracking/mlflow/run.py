"""One run in MLflow: a copy of its stored state, and the few calls to change it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from dlrun.storage.summary import Summary
from dlrun.tracking.content.journal_reader import BATCH, Mark, MetricBatch, Point, Text
from dlrun.tracking.content.metadata import Dataset, Metadata
from dlrun.tracking.content.run_source import RunSource
from dlrun.tracking.content.shorten import digest, shorten
from dlrun.tracking.mlflow.artifacts import Artifacts
from dlrun.tracking.mlflow.backend import Backend, StoredRun
from dlrun.tracking.mlflow.diagnosis import is_of_store
from dlrun.tracking.mlflow.model import Linked
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.limits import PER_CALL, TAG, fit, fit_params, fit_tags
from dlrun.tracking.mlflow.names.metrics import has_old_names, metric_name
from dlrun.tracking.mlflow.names.secrets import message
from dlrun.tracking.mlflow.names.tags import DESCRIPTION, DESCRIPTION_DIGEST, PROGRESS, SELECTED, read_tag, tag_name
from dlrun.tracking.mlflow.uri import page

# the tags of a run that its model has too
ORIGIN = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
STATUS = {
    "running": "RUNNING",
    "submitted": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
    "pruned": "KILLED",
}

T = TypeVar("T")


@dataclass(frozen=True)
class MlflowRun:
    """An MLflow run, with a copy of its stored state.

    `view` is its page; `source` is None for a sweep; `tags` are sent beside those of the metadata.
    """

    backend: Backend
    address: Address
    experiment_id: str
    stored: StoredRun
    view: str
    source: RunSource | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    # by curve, the points that were there when it was first asked for
    _histories: dict[str, set[tuple[int, float | str]]] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return self.stored.run_id

    @property
    def progress(self) -> Mark:
        return Mark.parse(read_tag(self.stored.tags, PROGRESS) or "")

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.address, self.run_id, self.stored.artifact_uri)

    def send(self, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        params = fit_params(metadata.params) if metadata else {}
        tags = self._tags(metadata, params) if metadata else {}
        for text in batch.texts if batch else ():
            self.send_text(text)
        if batch and batch.mark != self.progress:
            tags[tag_name(PROGRESS)] = str(batch.mark)
        self._log(batch.points if batch else (), params, tags)
        if metadata:
            self._send_datasets(metadata.datasets)

    def missing(self, points: Sequence[Point]) -> list[Point]:
        return [p for p in points if self._name(p) not in self.stored.metrics or not self._has(p)]

    def send_text(self, text: Text) -> None:
        """Store a text as an artifact."""
        # a series of texts has a folder of its own
        name = f"texts/{text.name}" if text.step is None else f"{text.name}/step-{text.step:06d}"
        self.artifacts.send_text(text.text, f"{fit(name)}.txt")

    def send_files(self, path: Path, folder: str) -> None:
        if path.is_dir():
            self.artifacts.send_folder(path, folder)
        else:
            self.artifacts.send_file(path, folder)

    def mark_selected(self, jobs: Mapping[str, str]) -> None:
        marked = self.backend.tagged(self.experiment_id, SELECTED, self.stored.tags["dlrun.id"])
        found = {job: self.backend.find(self.experiment_id, job) for job in jobs}
        wanted = {run.run_id: jobs[job] for job, run in found.items() if run and not run.deleted}
        for run_id in marked.keys() - wanted.keys():
            self.backend.untag(run_id, SELECTED)
        for run_id, label in wanted.items():
            if marked.get(run_id) != label:
                self.backend.log(run_id, [], [], [(SELECTED, label)])

    def finish(self, status: str, end: int) -> None:
        if status == "finished" and self.source:
            self._send_model(self.source, end)
        if self.stored.uncertain:  # once more, for the server may have been slow: it deletes the empty one
            self.backend.find(self.experiment_id, self.stored.tags["dlrun.id"])
        self.backend.close(self.run_id, STATUS.get(status, "KILLED"), end)

    def record(self) -> dict[str, str | None]:
        return {"mlflow_run_id": self.run_id, "mlflow_url": page(self.address, self.view)}

    def close(self) -> None:
        """Do nothing: the connection is the uploader's."""

    def _log(self, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Send points, new params and changed tags, progress last."""
        params = {name: value for name, value in params.items() if name not in self.stored.params}
        tags = {name: value for name, value in tags.items() if self.stored.tags.get(name) != value}
        fitting = [point._replace(name=self._name(point)) for point in points]
        for some_points, some_params, some_tags in _calls(fitting, params, tags):
            self.backend.log(self.run_id, some_points, some_params, some_tags)
        self.stored.params.update(params)
        self.stored.tags.update(tags)
        self.stored.metrics.update(point.name for point in fitting)

    def _tags(self, metadata: Metadata, params: Mapping[str, str]) -> dict[str, str]:
        tags = mlflow_tags(metadata) | dict(self.tags)
        # MLflow's params cannot be changed: a resumed run may have other ones
        sent = self.stored.params
        changed = [
            f"{name}: {sent[name]} → {value}" for name, value in params.items() if sent.get(name, value) != value
        ]
        if changed:
            tags["dlrun.changed"] = shorten("\n".join(changed), TAG)
        if metadata.description and self._may_describe(metadata.description):
            tags |= description_tags(metadata.description)
        return tags

    def _may_describe(self, description: str) -> bool:
        """Whether it is new, and replaces no person's text."""
        stored = self.stored.tags.get(DESCRIPTION)
        if stored is None or stored == description:
            return stored is None
        # asked again, for a person may have written since
        now = self.backend.tags(self.run_id)
        return digest(now.get(DESCRIPTION, "")) == read_tag(now, DESCRIPTION_DIGEST)

    def _send_datasets(self, datasets: Sequence[Dataset]) -> None:
        new = [
            fields for fields in map(_fields, datasets) if (fields["name"], fields["digest"]) not in self.stored.inputs
        ]
        if new:
            self.backend.add_inputs(self.experiment_id, self.run_id, new)
            self.stored.inputs.update((fields["name"], fields["digest"]) for fields in new)

    @cached_property
    def _old_names(self) -> bool:
        # a curve that was begun under an old name goes on under it
        return has_old_names(self.stored.metrics)

    def _name(self, point: Point) -> str:
        return metric_name(point.name, old=self._old_names)

    def _has(self, point: Point) -> bool:
        name = self._name(point)
        if name not in self._histories:
            stored = self.backend.history(self.run_id, name)
            self._histories[name] = {(step, _comparable(value)) for step, value in stored}
        return (point.step, _comparable(point.value)) in self._histories[name]

    def _send_model(self, source: RunSource, end: int) -> None:
        """Store the model of a finished run (`tracking.log_model`)."""
        load = source.load_model if source.setting("log_model", False) and not source.reused else None
        if load is None:
            return
        summary = source.run.summary()
        step = f"step {summary.best_step}: "
        # once for each set of selected weights
        if self.stored.tags.get("dlrun.model", "").startswith(step):
            return
        from dlrun.tracking.mlflow.model import send_model

        origin = {name: value for name, value in self.stored.tags.items() if name in ORIGIN}
        linked = _linked(summary, end)
        try:
            told = step + send_model(
                source.run, load, run_id=self.run_id, address=self.address, tags=origin, metrics=linked
            )
        except Exception as error:  # not every model can be exported: all else is sent
            if is_of_store(error):  # it is sent later, as all else is
                raise
            print(f"The model could not be logged: {message(error)}", file=sys.stderr)
            told = shorten(f"not logged: {message(error, TAG)}", TAG)
        self._log((), {}, {"dlrun.model": told})


def _comparable(value: float) -> float | str:
    # NaN equals itself here, and MLflow has the largest number in place of infinity
    return "nan" if math.isnan(value) else max(-sys.float_info.max, min(value, sys.float_info.max))


def mlflow_tags(metadata: Metadata) -> dict[str, str]:
    """The tags of metadata under MLflow's names."""
    named = {tag_name(name): value for name, value in metadata.tags.items()}
    return fit_tags({"mlflow.source.type": "LOCAL"} | named)


def description_tags(description: str) -> dict[str, str]:
    """The tags of a description."""
    return {tag_name(DESCRIPTION_DIGEST): digest(description), DESCRIPTION: description}


def _fields(dataset: Dataset) -> dict[str, str]:
    """MLflow's fields of a data set."""
    source = {"dataset": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint}
    return {
        "name": f"{dataset.name}/{dataset.split}",
        # MLflow takes 36 characters, its pages show fewer
        "digest": dataset.fingerprint[:16],
        "source_type": "dlrun",
        "source": json.dumps(source),
        "profile": json.dumps({"num_rows": dataset.size}),
    }


def _linked(summary: Summary, time: int) -> list[Linked]:
    """The selected and test values, with the split that each was measured on."""
    step, data = summary.best_step or summary.steps or 0, summary.data
    if not data.get("fingerprint"):
        return []
    found = []
    for name, value in summary.metrics.items():
        split = name.partition("/")[0].replace("val", "validation")
        # under the names and with the time of `RunUpload`'s last points: the run has each once
        shown = name if split == "test" else f"best/{name}"
        if value is not None and math.isfinite(float(value)):
            dataset = f"{data.get('name', 'data')}/{split}"
            found.append(Linked(Point(shown, float(value), time, step), dataset, data["fingerprint"][:16]))
    return found


def _calls(
    points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[Sequence[Point], Sequence[tuple[str, str]], Sequence[tuple[str, str]]]]:
    """Yield the content of each call, the last tags last."""
    metrics = list(_split(points, BATCH))
    values, last = list(_split(list(params.items()), PER_CALL)), list(_split(list(tags.items()), PER_CALL))
    # the progress is the last tag: it must not be stored before the points
    calls = max(len(metrics), len(values), len(last))
    yield from zip_longest(metrics, values, [[]] * (calls - len(last)) + last, fillvalue=[])


def _split(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
