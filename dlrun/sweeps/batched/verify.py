"""Runs that were trained in an ensemble trained again alone, and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.execution.device import apply
from dlrun.storage import checkpoint, journal
from dlrun.sweeps.batched.members import Builder, Member
from dlrun.sweeps.pool.isolation import settings_kept
from dlrun.terminal import output
from dlrun.terminal.format import number


class _Curves:
    """A recorder that keeps the points in memory."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.points.setdefault(name, []).append((step, float(value)))

    def save(self, content: dict[str, Any], best: Any) -> None:
        """Keep nothing: the weights are where they were trained."""


def tell(members: Sequence[Member], builder: Builder) -> None:
    """Train each member alone, leaving its folder as it is, and say by how much weights and curves differ."""
    for member in members:
        if member.folder.status() != "finished":
            continue
        label = " ".join(member.job.overrides) or member.job.n
        try:
            found = differences(member, builder)
        except Exception as error:  # the job itself has finished: whatever this is, it is no reason to repeat it
            output.warn(f"verify: {label}: alone it could not be trained: {type(error).__name__}: {error}")
            continue
        told = ", ".join(f"{name} by at most {number(value)}" for name, value in found.items())
        output.say(f"verify: {label}: alone it differs in {told}")


def differences(member: Member, builder: Builder) -> dict[str, float]:
    """Return the largest differences to the run trained alone: of the last weights, and of each curve of losses."""
    built = builder.fresh(member.job)
    curves = _Curves()
    with settings_kept():
        apply(built.execution)
        loop.train(built.training, State(), curves)
    weights, stacked = built.training.objective.model.state_dict(), checkpoint.load(member.folder.last)["model"]
    found = {"the weights": max((float((weights[n].cpu() - stacked[n]).abs().max()) for n in weights), default=0.0)}
    there = journal.curves(member.folder.journal)
    for name in ("train/loss", "val/loss"):
        pairs = zip(curves.points.get(name, []), there.get(name, []), strict=False)
        apart = [abs(one - other) for (_, one), (_, other) in pairs]
        if apart:
            found[name] = max(apart)
    return found
