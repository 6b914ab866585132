"""A job of a sweep, and what it is a repetition of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

REPLICATED = ("seed", "dataset.split_seed", "dataset.fold")
"""Keys whose values are repetitions of one configuration, and not configurations of their own."""


class Replicate(NamedTuple):
    """A repetition: its seed and, where these are swept, the seed of its split and its fold."""

    seed: int
    split: int = -1
    fold: int = -1

    def __str__(self) -> str:
        more = [f"{name} {place}" for name, place in (("split", self.split), ("fold", self.fold)) if place >= 0]
        return f"{self.seed} ({', '.join(more)})" if more else str(self.seed)


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `overrides` are this job's own, in the order of the sweep (`optimizer.lr=0.1`, `seed=0`). Jobs of
    one `group` are repetitions: they differ in keys of `REPLICATED` alone. `parts` are those of the identity
    (`storage.identity`), `unit` is the monitored metric's, `validation` the fingerprint of the validation samples:
    values of other units or samples are not comparable. Older manifests lack these.
    """

    n: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    identity: str
    group: str
    parts: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    validation: str | None = None

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def replicate(self) -> Replicate:
        own = {override.lstrip("+").partition("=")[0] for override in self.overrides}
        values = [self.config["dataset"].get(key.partition(".")[2]) if key in own else None for key in REPLICATED[1:]]
        return Replicate(self.seed, *(-1 if value is None else int(value) for value in values))

    @property
    def label(self) -> str:
        """The overrides, for a person."""
        return " ".join(o.lstrip("+") for o in self.overrides) or str(self.config.get("name"))

    @property
    def group_label(self) -> str:
        """The overrides without the seeds, for a person."""
        own = [o.lstrip("+") for o in self.overrides]
        return " ".join(o for o in own if o.partition("=")[0] not in REPLICATED) or str(self.config.get("name"))
