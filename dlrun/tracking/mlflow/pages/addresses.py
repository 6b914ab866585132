"""The addresses of MLflow's pages, behind `#/`, in its mode for training."""

from __future__ import annotations

from urllib.parse import quote

from dlrun.storage import manifest
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.names.limits import tag_filter

MODE = "workflowType=machine_learning"


def of_run(experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"experiments/{experiment_id}/runs/{run_id}?{MODE}"


def of_experiment(experiment_id: str) -> str:
    """The table of an experiment's runs, the newest first."""
    # in this order MLflow folds each sweep over its jobs
    return f"experiments/{experiment_id}/runs?{MODE}&orderByKey={quote('attributes.start_time')}&orderByAsc=false"


def of_sweep(experiment_id: str, sweep: SweepDir) -> str:
    """The charts of a sweep's jobs."""
    what = manifest.read(sweep)
    # sorted by date, MLflow folds the jobs away and draws the parent alone; sorted by a metric it shows each
    by, ascending = quote(f"metrics.`best/{what.monitor}`", safe=""), str(not what.higher_is_better).lower()
    order = f"orderByKey={by}&orderByAsc={ascending}"
    jobs = quote(tag_filter("dlrun.sweep", sweep.id).replace("`", '"'), safe="")
    return f"experiments/{experiment_id}/runs?{MODE}&{order}&compareRunsMode=CHART&searchFilter={jobs}"
