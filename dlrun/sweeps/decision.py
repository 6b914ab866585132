"""The decision on a sweep's selection: made when all jobs have ended, final once the test split was read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dlrun.errors import UserError
from dlrun.storage import journal
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.read_counts import count_reads
from dlrun.storage.results import Result, results, unended
from dlrun.storage.sweep_summary import Selection, SweepSummary, compare_means
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.selection import SelectedGroup, select_group


@dataclass(frozen=True)
class SweepState:
    """A sweep's results, and what was selected among them so far."""

    sweep: SweepDir
    manifest: Manifest
    results: Sequence[Result]
    summary: SweepSummary

    @cached_property
    def strata(self) -> dict[str, SweepState]:
        """The parts within which a configuration is selected: one for each data set."""
        if len(self.manifest.strata) == 1:
            return {"": _recovered(self)}
        parts = {}
        for label, groups in self.manifest.strata.items():
            own = [result for result in self.results if result.job.group in groups]
            summary = self.summary.of_stratum(groups)
            parts[label] = _recovered(replace(self, results=own, summary=summary))
        return parts

    @property
    def unended(self) -> dict[str, int]:
        return unended(self.results, self.summary)

    @property
    def is_final(self) -> bool:
        """The test split has been read for the selection."""
        kept = self.summary.selected
        # where every run reads the test split, none is sealed
        if kept is None or self.manifest.test == "every":
            return False
        # an earlier selection was read; the runs say it too, if a process died before the summary did
        known = kept.get("read") or kept.get("earlier")
        return bool(known or any(r.summary.test_reads for r in self.results if r.job.n in kept.get("jobs", [])))

    def untested(self, selection: Selection | None) -> list[Result]:
        """The selected jobs whose test split is still to be read."""
        if selection is None or self.manifest.test != "final":
            return []
        jobs = [result for result in self.results if result.job.n in selection.get("jobs", [])]
        return [r for r in jobs if r.status == "finished" and not r.changed and not _is_tested(r)]


@dataclass(frozen=True)
class Decision:
    """The selection, and `now`: another one, if that would be made today."""

    selection: Selection | None
    now: Selection | None = None


Decisions = dict[str, Decision]
"""One for each stratum, by its label."""


def read_state(sweep: SweepDir, manifest: Manifest | None = None) -> SweepState:
    manifest = manifest or read(sweep)
    return SweepState(sweep, manifest, results(sweep, manifest), sweep.summary())


def decide(state: SweepState) -> Decisions:
    """Select in each stratum, if all of its jobs have ended; a final selection is kept."""
    return {label: _decide(part) for label, part in state.strata.items()}


def decide_on_request(state: SweepState, *, again: bool = False) -> Decisions:
    """Select among the finished jobs; with `again`, replace a final selection.

    Raises `UserError` if no group has finished, or if another selection is final.
    """
    return {label: _decide_on_request(part, again=again) for label, part in state.strata.items()}


def untested(state: SweepState, decisions: Decisions) -> list[Result]:
    """The selected jobs whose test split is still to be read."""
    return [result for label, part in state.strata.items() for result in part.untested(decisions[label].selection)]


def _decide(state: SweepState) -> Decision:
    group = None if state.unended else select_group(state.results, state.manifest)
    now, kept = _entry(state, group) if group else None, state.summary.selected
    if state.is_final and kept:
        return _keep(kept, now)
    if now and kept and kept.get("jobs") == now["jobs"] and "reads_before" in kept and not kept.get("without"):
        # decided before: a process died between the decision and the test
        now["reads_before"] = kept["reads_before"]
    return Decision(now)


def _decide_on_request(state: SweepState, *, again: bool) -> Decision:
    group = select_group(state.results, state.manifest, some_seeds=True)
    if group is None:
        raise UserError(
            f"{state.sweep.path}: nothing can be selected, for no configuration has finished with a finite "
            f"{state.manifest.monitor} for all its seeds. Type `dlrun resume {state.sweep.id}` to go on."
        )
    now, kept = _entry(state, group, requested=True), state.summary.selected
    if not state.is_final or kept is None:
        return Decision(now)
    if group.group == kept.get("group"):
        return _keep(kept, now)
    if not again:
        raise UserError(
            f"{state.sweep.path}: the test split has been read for `{kept.get('label')}`, so this selection is final. "
            f"Now `{group.label}` would be selected ({compare_means(kept, now)}). To select it all the same and read "
            f"the test split again, add --force; the report says so."
        )
    replaced: Selection = {**kept}
    replaced.pop("earlier", None)
    return Decision({**now, "earlier": [*kept.get("earlier", []), replaced]})


def is_due(sweep: SweepDir) -> bool:
    """True if a sweep whose jobs have ended lacks its selection, or a test."""
    state = read_state(sweep)
    decisions = decide(state)
    for label, part in state.strata.items():
        kept, chosen = part.summary.selected or {}, decisions[label].selection or {}
        if chosen.get("group") != kept.get("group"):
            return True
    return bool(untested(state, decisions))


def _recovered(state: SweepState) -> SweepState:
    """The state, with a tested selection that its summary has lost."""
    if state.summary.selected is None and state.manifest.test == "final" and (found := _recover(state)):
        summary = SweepSummary(state.summary.to_dict())
        summary.selected = found
        return replace(state, summary=summary)
    return state


def _recover(state: SweepState) -> Selection | None:
    """The last selection that was tested, by the runs' journals."""
    last: dict[str, float] = {}
    for result in state.results:
        for line in journal.read(result.run.journal)[0] if result.summary.test_reads else []:
            asked = line.get("event") == "test_read" and line.get("sweep") == state.sweep.id
            if asked and not line.get("by_hand"):
                last[result.job.group] = max(last.get(result.job.group, 0.0), line.get("time", 0.0))
    if not last:
        return None
    # the others were replaced on request
    entries = [_describe(state, group) for group in sorted(last, key=last.__getitem__)]
    return {**entries[-1], "read": True, **({"earlier": entries[:-1]} if len(entries) > 1 else {})}


def _describe(state: SweepState, group: str) -> Selection:
    jobs = [result for result in state.results if result.job.group == group]
    return SelectedGroup.of(group, jobs, state.manifest.monitor).to_summary(state.manifest.monitor)


def _keep(kept: Selection, now: Selection | None) -> Decision:
    """Keep a final selection, with the seeds of its group that have finished since."""
    if now is None or now["group"] != kept.get("group"):
        return Decision(kept, now)
    return Decision({**kept, "mean": now["mean"], "jobs": now["jobs"]})


def _entry(state: SweepState, group: SelectedGroup, *, requested: bool = False) -> Selection:
    before = count_reads(state.sweep.id, state.results, state.summary).total
    entry: Selection = {**group.to_summary(state.manifest.monitor), "reads_before": before}
    # seeds that failed, of a single group
    lacking = state.unended or Counter(
        r.status for r in state.results if r.job.group == group.group and r.job.n not in group.jobs
    )
    if requested and lacking:
        entry |= {"without": dict(lacking), "of": len(state.results)}
    return entry


def _is_tested(result: Result) -> bool:
    # a data set without a test split has nothing to read
    return any(name.startswith("test/") for name in result.metrics) or not result.summary.data.get("test")
