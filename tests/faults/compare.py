"""What a server has of runs and sweeps, beside what their folders have: `python -m tests.faults.compare`."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrun.storage import journal, manifest
from dlrun.storage.lookup import all_runs, all_sweeps, sweep_of
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.metadata import params
from dlrun.tracking.content.settings import config_of
from dlrun.tracking.mlflow.names.limits import fit_params
from dlrun.tracking.mlflow.names.metrics import metric_name

STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}


@dataclass
class Found:
    """What was compared; `missing`, `doubled` and `wrong` name each difference."""

    runs: int = 0
    points: int = 0
    files: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not (self.missing or self.doubled or self.wrong)

    def __str__(self) -> str:
        counts = f"{self.runs} runs, {self.points} points, {self.files} files: "
        counts += f"{len(self.missing)} missing, {len(self.doubled)} doubled, {len(self.wrong)} wrong"
        return "\n".join([counts, *self.missing[:9], *self.doubled[:9], *self.wrong[:9]])


def compare(client: Any, runs: list[RunDir], sweeps: list[SweepDir]) -> Found:
    """Compare each run, each sweep and each of its jobs with what the server has under its `dlrun.id`."""
    found, stored = Found(), _stored(client)
    for run in runs:
        _run(client, found, run.id, run, stored)
    for sweep in sweeps:
        parent = _one(found, sweep.id, stored)
        for job in manifest.read(sweep).jobs:
            child = _run(client, found, f"{sweep.id}/{job.n}", sweep.run(job.n, job.identity), stored)
            if parent and child and child.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
                found.wrong.append(f"{sweep.id}/{job.n} has another parent than the sweep's run")
        if parent and parent.info.status not in ("FINISHED", "FAILED", "KILLED"):
            found.wrong.append(f"{sweep.id} has the status {parent.info.status}")
        if parent and sweep.report.is_dir():
            _files(client, found, parent.info.run_id, sweep.report, "report")
    return found


def _stored(client: Any) -> Mapping[str, list[Any]]:
    """All runs that are not deleted, by their `dlrun.id`."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, list[Any]] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_runs(experiments, max_results=500, page_token=token or None)
        for run in page:
            found.setdefault(run.data.tags.get("dlrun.id", "none"), []).append(run)
        token = page.token or None
    return found


def _one(found: Found, name: str, stored: Mapping[str, list[Any]]) -> Any:
    there = stored.get(name, [])
    found.runs += 1
    if len(there) > 1:
        found.doubled.append(f"{name}: {len(there)} runs")
    if not there:
        found.missing.append(f"{name}: its run")
    return there[0] if there else None


def _run(client: Any, found: Found, name: str, run: RunDir, stored: Mapping[str, list[Any]]) -> Any:
    there = _one(found, name, stored)
    if there is None:
        return None
    summary, run_id = run.summary(), there.info.run_id
    if there.info.status != STATUS.get(summary.status or ""):
        found.wrong.append(f"{name}: {there.info.status}, in the folder {summary.status}")
    expected = {**_logged(run), **_selected(run)}
    points = {key: value for key, value in _points(client, found, name, there).items() if key[0] != "epoch"}
    found.points += len(expected)
    found.missing += [f"{name}: {key}" for key in expected if key not in points]
    found.wrong += [f"{name}: {key} is in no journal" for key in points if key not in expected]
    same = {key for key in expected if key in points and _same(expected[key], points[key])}
    found.wrong += [f"{name}: {key} is {points[key]}" for key in expected if key in points and key not in same]
    wanted = fit_params(params(config_of(run)))
    found.missing += [f"{name}: param {key}" for key in wanted if key not in there.data.params]
    found.wrong += [f"{name}: param {k}" for k, v in wanted.items() if there.data.params.get(k, v) != v]
    for split, size in (("train", "train"), ("validation", "validation"), ("test", "test")):
        count = sum(each.dataset.name.endswith(f"/{split}") for each in there.inputs.dataset_inputs)
        if summary.data.get(size) and count != 1:
            (found.doubled if count else found.missing).append(f"{name}: {count} data sets {split}")
    _files(client, found, run_id, run.path / ".hydra", "config")
    _files(client, found, run_id, run.figures, "figures")
    _files(client, found, run_id, run.log, "log")
    return there


def _logged(run: RunDir) -> dict[tuple[str, int], float]:
    curves = journal.curves(run.journal)
    return {(metric_name(name), step): value for name, points in curves.items() for step, value in points}


def _selected(run: RunDir) -> dict[tuple[str, int], float]:
    """The values at the selected weights."""
    summary, curves = run.summary(), journal.curves(run.journal)
    step = summary.best_step or summary.steps or 0
    found = {}
    for name, value in summary.metrics.items():
        if value is not None and name.startswith(("train/", "val/")):
            found[f"best/{name}", step] = float(value)
        elif value is not None and name not in curves:
            found[metric_name(name), step] = float(value)
    return found


def _points(client: Any, found: Found, name: str, there: Any) -> dict[tuple[str, int], float]:
    stored = [
        (point.key, point.step, point.value) for key in there.data.metrics for point in _history(client, there, key)
    ]
    many = [key for key, count in Counter((key, step) for key, step, _ in stored).items() if count > 1]
    found.doubled += [f"{name}: {key}" for key in many]
    return {(key, step): value for key, step, value in stored}


def _history(client: Any, there: Any, key: str) -> Iterator[Any]:
    yield from client.get_metric_history(there.info.run_id, key)


def _same(value: float, stored: float) -> bool:
    return value == stored or (math.isnan(value) and math.isnan(stored)) or math.isinf(value)


def _files(client: Any, found: Found, run_id: str, path: Path, folder: str) -> None:
    """Look for each file of a folder among a run's artifacts, with its size."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    base = path.parent if path.is_file() else path
    sizes: dict[str, int] = {}
    for place in {str(Path(folder, file.relative_to(base)).parent) for file in files}:
        sizes |= {each.path: each.file_size for each in client.list_artifacts(run_id, place) if not each.is_dir}
    found.files += len(files)
    for file in files:
        stored = sizes.get(str(Path(folder, file.relative_to(base))))
        if stored is None:
            found.missing.append(f"{run_id}: {folder}/{file.name}")
        elif stored != file.stat().st_size:
            found.wrong.append(f"{run_id}: {folder}/{file.name} has {stored} bytes")


def of_outputs() -> tuple[list[RunDir], list[SweepDir]]:
    """The runs outside of sweeps, and the sweeps, of the outputs folder."""
    return [run for run in all_runs() if sweep_of(run) is None], list(all_sweeps())


def look() -> Found:
    """Compare the outputs folder with the server of `MLFLOW_TRACKING_URI`."""
    from mlflow import MlflowClient

    return compare(MlflowClient(), *of_outputs())


def main() -> int:
    """Compare, and print the differences; returns 1 if there are some."""
    found = look()
    print(found)
    return int(not found.equal)


if __name__ == "__main__":
    sys.exit(main())
