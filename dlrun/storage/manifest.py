"""What a sweep is: every job's configuration and identity, settled before the first of them starts.

So a configuration that is edited meanwhile changes nothing, and a sweep that was stopped can be
continued from its folder alone. A search adds its jobs as it goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dlrun.storage.files import write_atomically
from dlrun.storage.sweepdir import SweepDir


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it was decided.

    `overrides` are this job's own, in the order of the sweep (`optimizer.lr=0.1`, `seed=0`). Jobs of
    one `group` differ by nothing but the seed. `parts` are those of the identity (`storage.identity`);
    manifests of before 0.2 lack them.
    """

    n: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    identity: str
    group: str
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Return the job's seed."""
        return int(self.config["seed"])

    @property
    def label(self) -> str:
        """Return the overrides but the seed, as a person reads them."""
        return " ".join(o.lstrip("+") for o in self.overrides if not o.startswith("seed=")) or str(self.config["name"])


@dataclass(frozen=True)
class Manifest:
    """What was asked for, and the jobs that it came to.

    `definition` is a hash of `asked`: the composed configuration, the sweep's overrides, the search
    space and dlrun's sources. `monitor` chooses among the groups; `test` is `evaluation.test`. `basis` is
    what the identities rest on beside the configurations: sources, data, versions, devices.
    """

    name: str
    definition: str
    asked: dict[str, Any]
    command: str
    created: float
    monitor: str
    higher_is_better: bool
    test: str
    study: dict[str, Any] | None = None
    jobs: tuple[Job, ...] = ()
    basis: dict[str, Any] = field(default_factory=dict)

    @property
    def swept(self) -> tuple[str, ...]:
        """Return the keys that take more than one value, the seed among them, in the order of the overrides."""
        values: dict[str, set[str]] = {}
        for job in self.jobs:
            for override in job.overrides:
                key, _, value = override.lstrip("+").partition("=")
                values.setdefault(key, set()).add(value)
        return tuple(key for key, found in values.items() if len(found) > 1)

    @property
    def groups(self) -> dict[str, list[Job]]:
        """Return the jobs by group, in the order in which the groups begin."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            found.setdefault(job.group, []).append(job)
        return found

    def extended(self, jobs: Sequence[Job]) -> Manifest:
        """Return the manifest with further jobs."""
        return replace(self, jobs=(*self.jobs, *jobs))

    def write(self, sweep: SweepDir) -> None:
        """Write the manifest into the sweep's folder, in one move."""
        write_atomically(sweep.manifest, json.dumps(asdict(self), indent=1).encode() + b"\n")


def read(sweep: SweepDir) -> Manifest:
    """Return the manifest of a sweep."""
    content = json.loads(sweep.manifest.read_text())
    jobs = tuple(Job(**{**job, "overrides": tuple(job["overrides"])}) for job in content.pop("jobs"))
    return Manifest(**content, jobs=jobs)
