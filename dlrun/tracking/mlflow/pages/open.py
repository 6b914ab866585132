"""The page of a run or a sweep: its view is written into the store, if that permits it."""

from __future__ import annotations

from typing import Any

from dlrun.storage import manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.names.limits import tag_filter
from dlrun.tracking.mlflow.pages import addresses, shared_view
from dlrun.tracking.mlflow.pages.shared_view import LIMIT, State

# so many jobs tell which metrics and params there are
LOOKED_AT = 100


def page_of(client: Any, folder: RunDir | SweepDir, run_id: str) -> tuple[str, str]:
    """The addresses behind `#/` of a folder's charts and of its own page; `client` is an `MlflowClient`."""
    experiment_id = str(client.get_run(run_id).info.experiment_id)
    own = addresses.of_run(experiment_id, run_id)
    if isinstance(folder, SweepDir):
        plain, state = addresses.of_sweep(experiment_id, folder), _sweep(client, experiment_id, folder)
    else:
        plain, state = own, _run(client, folder, run_id)
    key = f"dlrun-{folder.id.replace('/', '-')}"
    value = shared_view.encode(state)
    if len(value) <= LIMIT:
        try:
            client.set_experiment_tag(experiment_id, shared_view.tag(key), value)
            return shared_view.address(experiment_id, key), own
        except Exception:  # a store that may only be read: the address has what fits into it
            pass
    return plain, own


def _run(client: Any, folder: RunDir, run_id: str) -> State:
    stored = client.get_run(run_id).data
    monitor = folder.summary().selected_by or "val/loss"
    return shared_view.run_state(stored.tags["dlrun.id"], monitor, stored.metrics)


def _sweep(client: Any, experiment_id: str, sweep: SweepDir) -> State:
    jobs = client.search_runs([experiment_id], tag_filter("dlrun.sweep", sweep.id), max_results=LOOKED_AT)
    metrics: dict[str, list[float]] = {}
    for job in jobs:
        for name, value in job.data.metrics.items():
            metrics.setdefault(name, []).append(value)
    drawn = "train/loss"
    with_curves = next((job.info.run_id for job in jobs if drawn in job.data.metrics), None)
    return shared_view.sweep_state(
        sweep,
        manifest.read(sweep),
        metrics=metrics,
        params={name for job in jobs for name in job.data.params},
        # a single point is no curve
        steps=with_curves is not None and len(client.get_metric_history(with_curves, drawn)) > 1,
    )
