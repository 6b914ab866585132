"""The groups of jobs that can be ranked: those with the same validation samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlrun.storage.jobs.job import Job, Replicate


def find_strata(jobs: Sequence[Job]) -> dict[str, frozenset[str]]:
    """The groups with the same validation samples, by a label; only these can be ranked.

    A sweep over data sets has one for each. The label has the overrides that the others do not share.
    """
    samples: dict[str, dict[Replicate, str | None]] = {}
    for job in jobs:
        samples.setdefault(job.group, {})[job.replicate] = job.validation
    found: list[tuple[dict[Replicate, str | None], set[str]]] = []
    for group, own in samples.items():
        known, groups = next((each for each in found if _same_samples(each[0], own)), ({}, set()))
        if not groups:
            found.append((known, groups))
        known.update(own)
        groups.add(group)
    if len(found) == 1:
        return {"": frozenset(samples)}
    labels = [_label(jobs, groups) for _, groups in found]
    # where no value tells them apart, a group's hash does
    unique = [
        f"{label} ({min(groups)[:8]})" if labels.count(label) > 1 else label
        for label, (_, groups) in zip(labels, found, strict=True)
    ]
    return {label: frozenset(groups) for label, (_, groups) in zip(unique, found, strict=True)}


def _same_samples(one: Mapping[Replicate, str | None], other: Mapping[Replicate, str | None]) -> bool:
    common = one.keys() & other.keys()
    if not common:  # other seeds, where the data may follow the seed
        return not {*one.values()}.isdisjoint(other.values())
    return all(one[each] == other[each] for each in common)


def _label(jobs: Sequence[Job], groups: set[str]) -> str:
    inside = [job.overrides for job in jobs if job.group in groups]
    outside = [job.overrides for job in jobs if job.group not in groups]
    telling = [o for o in inside[0] if all(o in each for each in inside) and not all(o in each for each in outside)]
    return " ".join(o.lstrip("+") for o in telling) or min(groups)[:8]
