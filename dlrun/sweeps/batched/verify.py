"""Stacked runs trained again alone, and the differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.execution.device import apply
from dlrun.storage import checkpoint, journal
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.sweeps.batched.isolation import restored_settings
from dlrun.sweeps.batched.members import Builder, Member
from dlrun.terminal import output
from dlrun.terminal.format import number


class SilentRecorder:
    """Keeps the curves in memory, and no checkpoints."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, float(value)))

    # nothing may be written: the folder is that of the finished job
    def save(self, checkpoint: Checkpoint, best: BestWeights | None) -> None:
        pass


def compare(members: Sequence[Member], builder: Builder) -> None:
    """Train each finished member alone, and print the differences."""
    for member in members:
        if member.folder.status() != "finished":
            continue
        label = " ".join(member.job.overrides) or member.job.n
        try:
            found = differences(member, builder)
        except Exception as error:  # the job itself has finished: no reason to repeat it
            output.warn(f"verify: {label}: alone it could not be trained: {type(error).__name__}: {error}")
            continue
        listed = ", ".join(f"{name} by at most {number(value)}" for name, value in found.items())
        output.say(f"verify: {label}: alone it differs in {listed}")


def differences(member: Member, builder: Builder) -> dict[str, float]:
    """The largest differences of weights and losses, trained alone."""
    built = builder.fresh(member.job)
    recorder = SilentRecorder()
    with restored_settings():
        apply(built.execution)
        loop.train(built.training, State(), recorder)
    single, stacked = built.training.objective.model.state_dict(), checkpoint.load(member.folder.last).model
    found = {"the weights": max((float((single[n].cpu() - stacked[n]).abs().max()) for n in single), default=0.0)}
    curves = journal.curves(member.folder.journal)
    for name in ("train/loss", "val/loss"):
        pairs = zip(recorder.curves.get(name, []), curves.get(name, []), strict=False)
        gaps = [abs(one - other) for (_, one), (_, other) in pairs]
        if gaps:
            found[name] = max(gaps)
    return found
