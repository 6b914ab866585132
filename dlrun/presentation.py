"""What a run shows: the head before it, the live line during it, the table after it."""

from __future__ import annotations

import sys
import time
from math import ceil
from pathlib import Path
from typing import Any

from dlrun import console
from dlrun.build import Built
from dlrun.console import amount, duration, number
from dlrun.device import describe
from dlrun.plan import Plan
from dlrun.rundir import RunDir

HEARTBEAT = 30.0
"""Seconds after which a log gets a line even if no epoch has ended."""


def head(built: Built, run: RunDir | None = None, *, start: int = 0) -> str:
    """Return what will run, in a few lines."""
    data, plan, config = built.data, built.training.plan, built.config
    sizes = [f"{len(data.train)} train"]
    sizes += [f"{len(split)} {name}" for name, split in (("validation", data.validation), ("test", data.test)) if split]
    model, optimizer, schedule = (
        config[name]["_target_"].rsplit(".", 1)[-1] for name in ("model", "optimizer", "schedule")
    )
    execution = built.execution
    rows = [
        ["data", f"{data.name}: {', '.join(sizes)}"],
        ["model", f"{model}: {built.parameters:,} parameters, {amount(built.flop_per_step, 'FLOP')} a step"],
        ["optimizer", f"{optimizer}, lr {number(built.training.optimizer.lr)}, schedule {schedule}"],
        ["steps", f"{plan.steps} of {built.training.batches.size} samples ({plan.epoch(plan.steps):.4g} epochs)"],
        ["device", f"{describe(execution.device)}, {execution.precision}, {_threads(built)}"],
    ]
    if start:
        rows.append(["resumed", f"from step {start}"])
    if run:
        rows.append(["folder", _relative(run)])
    return f"{config['name']}  seed {config['seed']}\n" + "\n".join(f"  {name:<10}{text}" for name, text in rows)


def _threads(built: Built) -> str:
    n = built.execution.threads
    return f"{n} thread{'s' if n != 1 else ''}"


def _relative(run: RunDir) -> str:
    here = Path.cwd()
    return str(run.path.relative_to(here) if run.path.is_relative_to(here) else run.path)


class Progress:
    """The live line of a terminal; in a log, a line an epoch (but twenty a run at most), and one every 30 s."""

    def __init__(self, plan: Plan, start: int, *, validated: bool) -> None:
        self._plan = plan
        self._start = self._written_step = start
        self._validated = validated
        self._begun = self._written = self._shown = time.monotonic()
        self._latest: dict[str, float] = {}

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Take in a point of the curves, and show it if a person is due to see something."""
        self._latest |= values
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        if terminal and (now - self._shown > 0.1 or step == self._plan.steps):
            console.live(self._line(step, epoch, now))
            self._shown = now
        if not self._unfinished(step, values) and self._due(step, now):
            tell = console.note if terminal else console.say
            tell(self._line(step, epoch, now))
            self._written, self._written_step = now, step

    def _unfinished(self, step: int, values: dict[str, float]) -> bool:
        """Return whether the validation of this step is yet to come."""
        return "lr" in values and self._validated and self._plan.evaluates(step)

    def _due(self, step: int, now: float) -> bool:
        portion = self._plan.per_epoch * ceil(self._plan.epoch(self._plan.steps) / 20)
        late = now - self._written > HEARTBEAT
        return late or step == self._plan.steps or step // portion > self._written_step // portion

    def _line(self, step: int, epoch: float, now: float) -> str:
        rate = (step - self._start) / max(now - self._begun, 1e-9)
        left = (self._plan.steps - step) / max(rate, 1e-9)
        shown = [f"{name} {value:.4g}" for name, value in self._latest.items() if name.startswith(("train/", "val/"))]
        samples = self._latest.get("throughput/samples_per_second", 0.0)
        return (
            # a narrow terminal cuts the metrics, not the time
            f"  epoch {epoch:.4g}  step {step}/{self._plan.steps}  {duration(left)} left  "
            f"{amount(samples)} samples/s  {'  '.join(shown)}"
        )


def closing(summary: dict[str, Any], run: RunDir) -> str:
    """Return the table of what came out."""
    metrics: dict[str, float] = summary["metrics"]
    splits = [s for s in ("train", "val", "test") if any(name.startswith(s + "/") for name in metrics)]
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics))
    rows = [["", *names]]
    rows += [
        [split, *(number(metrics[k]) if (k := f"{split}/{n}") in metrics else "" for n in names)] for split in splits
    ]
    weights = (
        f"weights of step {summary['best_step']}, the best validation" if summary["selected_by"] else "the last weights"
    )
    return (
        f"{console.table(rows)}\n"
        f"  {weights}; {summary['steps']} steps in {duration(summary['train_seconds'])}, "
        f"{duration(summary['seconds'])} in all\n"
        f"  {_relative(run)}"
    )
