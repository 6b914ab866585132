"""The recorder of a run: points and checkpoints go to the folder and to the screen."""

from __future__ import annotations

from dlrun.execution.flops import StepCost
from dlrun.execution.peak_flops import peak_flops
from dlrun.optimizers.descent import Descent
from dlrun.runs import checkpoint_writer
from dlrun.runs.build import Built
from dlrun.runs.checkpoint_writer import Saver
from dlrun.runs.presentation import Progress
from dlrun.runs.samples import Samples
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir


def make_recorder(built: Built, run: RunDir, journal: Journal, *, start: int, job: bool) -> RunRecorder:
    """Make the recorder of a run from step `start` on.

    A `job` writes no samples and measures no peak.
    """
    data, plan = built.data, built.training.plan
    progress = Progress(plan, start, validated=data.validation is not None)
    writes = data.spec.task == "language" and data.tokenizer is not None and built.trainer.figures and not job
    samples = Samples(built, journal) if writes else None
    saver = Saver(run, journal, checkpoint_writer.make_snapshot(built.training.device))
    return RunRecorder(journal, progress, cost=step_cost(built, measure=not job), saver=saver, samples=samples)


def step_cost(built: Built, *, measure: bool) -> StepCost:
    """The cost of a step.

    With `measure`, the peak of an unknown processor is measured.
    """
    spec, training = built.data.spec, built.training
    return StepCost(
        # what another optimizer computes, and how often, is its own affair
        flop=built.flop_per_step if isinstance(training.optimizer, Descent) else 0,
        samples=training.batches.size,
        tokens=spec.input_shape[0] if spec.task == "language" else 0,
        peak=peak_flops(built.execution, measure=measure),
    )


class RunRecorder:
    """Writes a run's points and checkpoints, and shows them."""

    def __init__(
        self, journal: Journal, progress: Progress, *, cost: StepCost, saver: Saver, samples: Samples | None = None
    ) -> None:
        self._journal = journal
        self._progress = progress
        self._cost = cost
        self._saver = saver
        self._samples = samples

    @property
    def sample(self) -> tuple[int, str] | None:
        """The model's last text, and its step."""
        return self._samples.last if self._samples else None

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append a point with its derived values, and show it."""
        # FLOP and tokens so far, and the share of the processor's peak
        values = self._cost.at(step, values)
        self._journal.metrics(step, epoch, values)
        self._progress.point(step, epoch, values)
        # at a validation, where training pauses anyway
        if self._samples and any(name.startswith("val/") for name in values):
            self._samples.write(step)

    def save(self, checkpoint: Checkpoint, best: BestWeights | None) -> None:
        """Write the checkpoints, or begin to."""
        self._saver.save(checkpoint, best)

    def insist(self) -> None:
        """Wait until the last checkpoint is written.

        Raises `RunError` if the disk stays full.
        """
        self._saver.insist()

    def close(self) -> None:
        """Wait for the checkpoint under way; an error is a warning."""
        self._saver.close()
