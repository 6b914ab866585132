"""The sides of a comparison: single runs, or the runs of a sweep's group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.report.known_samples import describe_runs
from dlrun.report.overview import JobGroup, Overview, read_overview
from dlrun.report.selected import departures
from dlrun.storage import run_config
from dlrun.storage.jobs.job import Replicate
from dlrun.storage.lookup import find, find_sweep
from dlrun.storage.results import finished
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import describe_unended
from dlrun.terminal.format import counted


@dataclass(frozen=True)
class Side:
    """Runs by repetition; `metric` selected them.

    `direction` is True if higher values of it are better, None if unknown. `note` says what departed from the rule of
    the selection. `rivals` are the groups that it was selected among.
    """

    label: str
    runs: Mapping[Replicate, RunDir]
    metric: str
    direction: bool | None = None
    note: str = ""
    rivals: Sequence[Side] = ()

    @cached_property
    def summaries(self) -> dict[Replicate, Summary]:
        return {seed: run.summary() for seed, run in self.runs.items()}

    @cached_property
    def folders(self) -> frozenset[Path]:
        return frozenset(run.path for run in self.runs.values())

    def values(self, metric: str) -> dict[Replicate, float]:
        """A metric of the runs that have it."""
        found = {seed: summary.metrics for seed, summary in self.summaries.items()}
        return {seed: float(metrics[metric]) for seed, metrics in found.items() if metric in metrics}

    def higher_is_better(self, metric: str) -> bool | None:
        """Whether higher values of any metric are better; None if its runs do not say it."""
        # older runs have their sweep's word alone, for the metric that selected, on any split
        if self.direction is not None and self.metric.partition("/")[2] == metric.partition("/")[2]:
            return self.direction
        known = {summary.higher_is_better(metric) for summary in self.summaries.values()}
        return known.pop() if len(known) == 1 else None

    def configuration(self, seed: Replicate) -> dict[str, Any]:
        from omegaconf import OmegaConf

        found: Any = OmegaConf.to_container(run_config.load(self.runs[seed]))
        return dict(found)


def repetition(sides: Sequence[Side]) -> str:
    """The word for what a side's runs differ in, as `Manifest.repetition` has it."""
    most = max(sides, key=lambda side: len(side.runs))
    seeds, splits, folds = map(set, zip(*most.runs, strict=True))
    if len(folds) < 2:
        return "seed"
    return "fold" if len(seeds) == len(splits) == 1 else "repetition"


def comparisons(references: Sequence[str]) -> dict[str, list[Side]]:
    """Find the sides of a comparison, or of one for each data set of a sweep, by its label.

    A reference is a run, a sweep (its selected or only group) or a group (`SWEEP:lr=0.1`). A single sweep stands for
    all its groups, the selected or best one first. Raises `UserError` for a reference that is not found or not
    finished.
    """
    if len(references) == 1:
        return _all_groups(references[0])
    return {"": [_side(reference) for reference in references]}


def _all_groups(reference: str) -> dict[str, list[Side]]:
    sweep = find_sweep(reference)
    if sweep is None:
        raise UserError(
            f"`dlrun compare {reference}` names a single run. Add another run, or name a sweep with several groups."
        )
    overview = read_overview(sweep)
    # values of different samples cannot be compared, so each data set is compared for itself
    found = {part.label: _ranked_sides(part) for part in overview.strata}
    several = {label: own for label, own in found.items() if len(own) > 1}
    if several:
        return several
    most = max(map(len, found.values()))
    of = f" of each of {len(found)} data sets" if len(found) > 1 else ""
    raise UserError(
        f"{sweep.path} has {counted(most, 'group')}{of} with finished runs, and a comparison needs two. Add "
        f"another sweep: `dlrun compare {reference} OTHER`."
    )


def _ranked_sides(overview: Overview) -> list[Side]:
    """The groups with finished runs; the first was selected, or is the best."""
    groups = [group for group in overview.groups if finished(group.results)]
    groups.sort(key=lambda group: not group.selected)  # stable: the others stay ranked
    found = [_of_group(overview, group, group.label, among=False) for group in groups]
    return [replace(found[0], rivals=found[1:]), *found[1:]] if found else []


def _side(reference: str) -> Side:
    sweep, _, label = reference.partition(":")
    # a folder may contain a colon, so the whole reference comes first
    found = find_sweep(reference)
    if found is None and label and (found := find_sweep(sweep)):
        overview = read_overview(found)
        return _of_group(overview, _find_group(overview, label, reference), f"{found.id}:{label}")
    if found is None:
        return _of_run(find(reference, what="run or sweep"))
    overview = read_overview(found)
    if len(overview.groups) == 1:
        return _of_group(overview, overview.groups[0], f"{overview.manifest.name} {found.id}")
    if overview.selected is None:
        raise UserError(
            f"{found.path} has {counted(len(overview.groups), 'group')}, and none was selected{_why(overview)}. Name "
            f"one of:{_listed(overview)}"
        )
    return _of_group(overview, overview.selected, f"{found.id}:{overview.selected.label}")


def _why(overview: Overview) -> str:
    if len(overview.strata) > 1:
        return " for all of them, which are of several data sets"
    return f": {describe_unended(overview.unended, len(overview.results))}" if overview.unended else ""


def _of_run(run: RunDir) -> Side:
    summary = run.summary()
    if run.status() != "finished":
        raise UserError(
            f"{run.path} has not finished (status: {run.status()}). To continue it: `dlrun resume {run.id}`."
        )
    label, metric = f"{summary.name} {run.id}", summary.selected_by or "val/loss"
    return Side(label, {Replicate(summary.seed or 0): run}, metric, note=describe_runs([summary]))


def _of_group(overview: Overview, group: JobGroup, label: str, *, among: bool = True) -> Side:
    runs = {result.job.replicate: result.run for result in finished(group.results)}
    if not runs:
        raise UserError(f"No run of `{group.label}` in {overview.sweep.path} has finished.")
    known = describe_runs([result.summary for result in finished(group.results)])
    note = " ".join(filter(None, [departures(overview) if group.selected else "", known]))
    rivals = []
    if among and group.selected:
        stratum = next(part for part in overview.strata if any(own.key == group.key for own in part.groups))
        rivals = [
            _of_group(overview, own, own.label, among=False)
            for own in stratum.groups
            if own.key != group.key and finished(own.results)
        ]
    return Side(label, runs, overview.metric, overview.manifest.higher_is_better, note, rivals)


def _find_group(overview: Overview, label: str, reference: str) -> JobGroup:
    """The only group with all the values given.

    `lr=0.1` matches `optimizer.lr=0.1`.
    """
    wanted = label.replace(",", " ").split()

    def fits(group: JobGroup) -> bool:
        have = group.label.split()
        return all(any(h == w or h.endswith(f".{w}") for h in have) for w in wanted)

    fitting = [group for group in overview.groups if fits(group)]
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(
        f"`{reference}` matches {len(fitting)} groups of {overview.sweep.path}; it must match one. "
        f"Valid:{_listed(overview)}"
    )


def _listed(overview: Overview) -> str:
    shown = overview.groups[:20]
    more = f"\n  … and {len(overview.groups) - len(shown)} more" if len(overview.groups) > len(shown) else ""
    return "".join(f"\n  {overview.sweep.id}:{group.label.replace(' ', ',')}" for group in shown) + more
