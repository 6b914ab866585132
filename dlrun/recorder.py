"""What the loop finds out, written into the run's folder and shown."""

from __future__ import annotations

from typing import Any

from dlrun import checkpoint, console, device
from dlrun.build import Built
from dlrun.cost import Cost
from dlrun.errors import RunError
from dlrun.journal import Journal
from dlrun.optimizers.descent import Descent
from dlrun.presentation import Progress
from dlrun.rundir import RunDir, wait_until
from dlrun.samples import Samples

PATIENCE = 600.0
"""Seconds for which a run that has ended waits for space to write its weights."""


def recording(built: Built, run: RunDir, journal: Journal, *, start: int, job: bool) -> Recorder:
    """Return the recorder of a run that begins at the step `start`; a `job` of a sweep has no time for extras."""
    data, plan = built.data, built.training.plan
    progress = Progress(plan, start, validated=data.validation is not None)
    writes = data.spec.task == "language" and data.tokenizer is not None and built.trainer.figures and not job
    samples = Samples(built, journal) if writes else None
    return Recorder(run, journal, progress, cost=cost_of(built, measure=not job), samples=samples)


def cost_of(built: Built, *, measure: bool) -> Cost:
    """Return what a step takes; `measure` allows to find out how fast the processor is."""
    spec, training = built.data.spec, built.training
    return Cost(
        # what another optimizer computes, and how often, is its own affair
        flop=built.flop_per_step if isinstance(training.optimizer, Descent) else 0,
        samples=training.batches.size,
        tokens=spec.input_shape[0] if spec.task == "language" else 0,
        peak=device.peak(built.execution, measure=measure),
    )


class Recorder:
    """Writes what the loop finds out into the run's folder, and shows it.

    On a full disk the last good checkpoint stays and training goes on; `insist` waits at the end.
    """

    def __init__(
        self, run: RunDir, journal: Journal, progress: Progress, *, cost: Cost, samples: Samples | None = None
    ) -> None:
        self._run = run
        self._journal = journal
        self._progress = progress
        self._cost = cost
        self._samples = samples
        self._best_step: int | None = None
        self._unwritten: tuple[dict[str, Any], dict[str, Any] | None] | None = None

    @property
    def sample(self) -> tuple[int, str] | None:
        """Return the last text that the model wrote, and its step."""
        return self._samples.last if self._samples else None

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append a point to the journal, with what follows from it, and show it; have a validated model write."""
        values = self._cost.at(step, values)
        self._journal.metrics(step, epoch, values)
        self._progress.point(step, epoch, values)
        if self._samples and any(name.startswith("val/") for name in values):
            self._samples.write(step)

    def save(self, content: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Write the checkpoints."""
        self._unwritten = content, best
        try:
            self._write()
        except OSError as error:
            console.warn(f"No checkpoint at step {content['state']['step']} ({error}); the one before it stays.")

    def insist(self) -> None:
        """Wait until the last checkpoint can be written; raise `RunError` if the disk stays full."""
        if self._unwritten is None:
            return
        console.warn("The trained weights are in memory only. Waiting for space on the disk (Ctrl-C gives them up) …")
        if not wait_until(self._tried, PATIENCE, poll=1.0):
            raise RunError(f"The disk stayed full for {console.duration(PATIENCE)}: the last weights are not saved.")

    def _tried(self) -> bool:
        try:
            self._write()
        except OSError:
            return False
        return True

    def _write(self) -> None:
        if self._unwritten is None:
            return
        content, best = self._unwritten
        # the best first: a `last` that names a best step finds its weights
        if best and best["step"] != self._best_step:
            checkpoint.save(self._run.best, best)
            self._best_step = best["step"]
        checkpoint.save(self._run.last, content)
        self._journal.sync()
        self._unwritten = None
