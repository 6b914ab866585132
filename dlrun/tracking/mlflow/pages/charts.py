"""The charts that a view shows, as MLflow keeps them (`runs-charts.types.ts`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

Chart = dict[str, Any]

CURVES, RESULTS = "dlrun-curves", "dlrun-results"
LOG_AXIS = 30.0  # ratio of the largest to the smallest last value above which an axis is logarithmic, as in figures
# MLflow adds a chart of each further metric, in the section of its name: these are closed at first
CLOSED = ("best/val", "best/train", "test", "val", "train", "grad_norm", "Model metrics", "System metrics")


def sections(charts: Collection[Chart], metrics: Collection[str]) -> list[dict[str, Any]]:
    """The sections that have something, in their order on the page; the charts are in the open ones."""
    used = {chart["metricSectionId"] for chart in charts}
    opened = [(uuid, name, True) for uuid, name in ((CURVES, "Curves"), (RESULTS, "Results")) if uuid in used]
    # the last two are MLflow's own
    closed = [name for name in CLOSED if name in CLOSED[-2:] or any(m.startswith(f"{name}/") for m in metrics)]
    found = (*opened, *((f"dlrun-{name}", name, False) for name in closed))
    fixed = {"isReordered": False, "deleted": False, "isGenerated": False}
    return [{"uuid": uuid, "name": name, "display": display, **fixed} for uuid, name, display in found]


def curves(monitor: str, metrics: Mapping[str, Collection[float]]) -> list[Chart]:
    """Loss of training and validation, the monitored metric, perplexity, rate.

    `metrics` has each run's last value by name.
    """
    quantity = monitor.partition("/")[2]
    # of a monitored metric that training has too, both
    pairs = [("loss", ("train/loss", "val/loss")), (quantity, (f"train/{quantity}", monitor))]
    pairs += [(name, (f"train/{name}", f"val/{name}")) for name in ("perplexity", "bits_per_byte")]
    return [*_lines([*dict(pairs).values(), ("lr",)], metrics)]


def _lines(wanted: Iterable[tuple[str, ...]], metrics: Mapping[str, Collection[float]]) -> Iterator[Chart]:
    for names in wanted:
        shown = [name for name in names if name in metrics]
        if shown:
            line = _chart("LINE", CURVES, shown[-1], metricKey=shown[-1], selectedMetricKeys=shown)
            scale = "log" if _spans_decades([value for name in shown for value in metrics[name]]) else "linear"
            fixed = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "xAxisKey": "step"}
            yield line | fixed | {"scaleType": scale}


def _spans_decades(values: Collection[float]) -> bool:
    # a rate far too high would flatten the curves of all others
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > LOG_AXIS * min(finite)


def results(swept: Sequence[str], monitor: str, metrics: Collection[str]) -> list[Chart]:
    """The selected and test values of jobs, also over what was swept."""
    # a scatter has no scale of its own in MLflow: what was swept lies on a linear axis, even a rate
    best = [name for name in dict.fromkeys((f"best/{monitor}", "best/val/loss")) if name in metrics] or [monitor]
    quantity = monitor.partition("/")[2]
    tests = [name for name in (f"test/{quantity}", "test/loss") if name in metrics][:1]
    over = [
        _chart("SCATTER", RESULTS, f"{name} over {key}", displayName=f"{name} over {key}", runsCountToCompare=100)
        | {"xaxis": {"key": key, "type": "PARAM"}, "yaxis": {"key": name, "type": "METRIC"}}
        for key in swept
        for name in (best[0], *tests)
    ]
    together = _chart("PARALLEL", RESULTS, "parallel", selectedParams=[*swept], selectedMetrics=best[:1])
    bars = [
        _chart("BAR", RESULTS, name, metricKey=name, displayName=name, runsCountToCompare=20) for name in best + tests
    ]
    return [*bars, *over, *([together | {"showAllRuns": False}] if len(swept) > 1 else [])]


def _chart(kind: str, section: str, name: str, **more: Any) -> Chart:
    fixed = {"deleted": False, "isGenerated": False}
    return {"type": kind, "uuid": f"dlrun-{kind}-{name}".lower(), "metricSectionId": section, **fixed, **more}
