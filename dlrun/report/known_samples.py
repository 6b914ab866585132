"""The sentences on samples that runs knew before they were judged by them."""

from __future__ import annotations

from collections.abc import Sequence

from dlrun.report.overview import Overview
from dlrun.storage.overlap import describe_known, describe_shared
from dlrun.storage.summary import Summary
from dlrun.terminal.format import counted


def describe(overview: Overview) -> str:
    """What the runs of a sweep knew of validation and test; else empty."""
    return describe_runs([result.summary for result in overview.finished])


def describe_runs(runs: Sequence[Summary]) -> str:
    """What runs knew of validation and test, the first of each kind in numbers; else empty."""
    known = [run for run in runs if describe_known(run.origin)]
    unknown = [run for run in runs if run.origin.get("unknown") and run not in known]
    sharing = [run for run in runs if run.data.get("shared")]
    found = []
    if known:
        first = known[0].origin
        found.append(
            f"{_of(known, runs)} began with weights that knew samples of validation or test "
            f"(init_from={first.get('init_from')}: {'; '.join(describe_known(first))}): these numbers are too good."
        )
    if unknown:
        reasons = "; ".join(unknown[0].origin.get("unknown", ()))
        found.append(f"{_of(unknown, runs)} began with weights of unknown origin: {reasons}.")
    if sharing:
        found.append(f"The splits share samples: {'; '.join(describe_shared(sharing[0].data.get('shared', {})))}.")
    return " ".join(found)


def _of(some: Sequence[Summary], runs: Sequence[Summary]) -> str:
    if len(runs) == 1:
        return "It"
    return f"{len(some)} of {counted(len(runs), 'run')}"
