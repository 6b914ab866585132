"""Views that MLflow's pages take from a tag of the experiment.

MLflow's button "Share" writes the state of a page into the tag `mlflow.sharedViewState.KEY` of the experiment, and
opens it by `viewStateShareKey=KEY` in the address: JSON, compressed because a tag holds 5,000 characters. Seen in
MLflow 3.5 to 3.18 (`useSharedExperimentViewState.ts`). An address with a filter or an order of its own has no view.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dlrun.storage.jobs.job import REPLICATED
from dlrun.storage.manifest import Manifest
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.names.limits import tag_filter
from dlrun.tracking.mlflow.names.tags import SELECTED
from dlrun.tracking.mlflow.pages import charts
from dlrun.tracking.mlflow.pages.addresses import MODE

# the characters that MLflow takes as the value of an experiment's tag
LIMIT = 5000
# the most rows whose curves are drawn at first
DRAWN = 20

State = dict[str, Any]
"""The state of a page of runs, as MLflow keeps it."""


def address(experiment_id: str, key: str) -> str:
    """The address of a view, behind `#/`."""
    return f"experiments/{experiment_id}/runs?{MODE}&compareRunsMode=CHART&viewStateShareKey={key}"


def tag(key: str) -> str:
    """The experiment's tag of a view."""
    return f"mlflow.sharedViewState.{key}"


def encode(state: State) -> str:
    """A state as the value of its tag.

    >>> encode({"searchFilter": ""})[:8]
    'deflate;'
    """
    return f"deflate;{base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()}"


def run_state(identifier: str, monitor: str, metrics: Mapping[str, float]) -> State:
    """The view of one run: its curves first."""
    drawn = charts.curves(monitor, {name: [value] for name, value in metrics.items()})
    return _state(tag_filter("dlrun.id", identifier), drawn, metrics, _columns([], monitor, metrics))


def sweep_state(
    sweep: SweepDir,
    manifest: Manifest,
    *,
    metrics: Mapping[str, Collection[float]],
    params: Collection[str],
    steps: bool,
) -> State:
    """The view of a sweep's jobs, the best first, the seeds of a configuration as one.

    `metrics`, with the last values, and `params` are those that the jobs have in MLflow; `steps`: whether their curves
    have several points.
    """
    swept = [key for key in manifest.swept if key in params and key not in REPLICATED]
    monitor = manifest.monitor
    drawn = [
        *(charts.curves(monitor, metrics) if steps else []),
        *charts.results(swept, monitor, metrics),
    ]
    state = _state(tag_filter("dlrun.sweep", sweep.id), drawn, metrics, _columns(swept, monitor, metrics))
    by = f"best/{monitor}" if f"best/{monitor}" in metrics else monitor
    state |= {"orderByKey": f"metrics.`{by}`", "orderByAsc": not manifest.higher_is_better}
    if any(len(jobs) > 1 for jobs in manifest.groups.values()):
        group = {"mode": "tag", "groupByData": "dlrun.group"}
        state["groupBy"] = {"aggregateFunction": "average", "groupByKeys": [group]}
        state["useGroupedValuesInCharts"] = True
    if len(manifest.groups) > DRAWN:
        state["runsHiddenMode"] = "FIRST_20_RUNS"
    return state


def _state(wanted: str, drawn: Sequence[charts.Chart], metrics: Collection[str], columns: Sequence[str]) -> State:
    return {
        # the page's own spelling of a quoted name
        "searchFilter": wanted.replace("`", '"'),
        "selectedColumns": list(columns),
        "compareRunCharts": list(drawn),
        "compareRunSections": charts.sections(drawn, metrics),
        # keeps the order of the sections, which MLflow would sort by name
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _columns(swept: Sequence[str], monitor: str, metrics: Collection[str]) -> list[str]:
    best = [f"best/{monitor}", *sorted(name for name in metrics if name.startswith("best/val/"))]
    # runs of before 0.2 have no best values
    selected = [name for name in dict.fromkeys(best) if name in metrics] or [monitor]
    tests = sorted(name for name in metrics if name.startswith("test/"))
    return [
        *(f"params.`{key}`" for key in swept),
        *(f"metrics.`{name}`" for name in (*selected, *tests)),
        f"tags.`{SELECTED}`",
    ]
