"""The recorder of a run: points and checkpoints go to the folder and to the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dlrun import metrics as known
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.execution.flops import StepCost
from dlrun.execution.machine_load import MachineLoad
from dlrun.execution.peak_flops import peak_flops
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.observers.view import Watched
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.em import EM
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.least_squares import LeastSquares
from dlrun.runs.build import Built
from dlrun.runs.presentation import Progress, Undefined
from dlrun.runs.recording import checkpoint_writer
from dlrun.runs.recording.checkpoint_writer import Saver
from dlrun.runs.recording.observers import Observers
from dlrun.runs.samples import Samples
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir


def make_recorder(
    built: Built, run: RunDir, journal: Journal, *, start: int, job: bool, stacked: bool = False
) -> RunRecorder:
    """Make the recorder of a run from step `start` on.

    A `job` writes no samples and measures no peak. Of a `stacked` one the model has no weights before its end.
    """
    data, plan = built.data, built.training.plan
    progress = Progress(plan, start, validated=data.validation is not None)
    writes = data.spec.task == "language" and data.tokenizer is not None and built.trainer.figures and not job
    samples = Samples(built, journal) if writes else None
    saver = Saver(run, journal, checkpoint_writer.make_snapshot(built.training.device))
    saver.saved_step = start or None
    cost, monitor = step_cost(built, measure=not job), built.training.monitor
    extras = Extras(derivation(built), MachineLoad(built.training.device) if built.tracking.system_metrics else None)
    no_model = "this run was trained in a stack: its model has no weights before its end" if stacked else ""
    built.observers.attach(Watched(built.training, data, built.config, run, journal), no_model=no_model)
    made = RunRecorder(journal, progress, cost=cost, saver=saver, monitor=monitor, samples=samples, extras=extras)
    made.observers = built.observers
    return made


def step_cost(built: Built, *, measure: bool) -> StepCost:
    """The cost of a step.

    With `measure`, the peak of an unknown processor is measured.
    """
    spec, training, optimizer = built.data.spec, built.training, built.training.optimizer
    size = training.batches.size
    # what another optimizer computes, and how often, is its own affair
    flop = built.flop_per_step if isinstance(optimizer, Descent | LBFGS) else 0
    if isinstance(optimizer, LeastSquares | EM):
        flop = optimizer.flop(training.objective, size)
    return StepCost(
        flop=flop,
        samples=size,
        tokens=spec.input_shape[0] if spec.task == "language" else 0,
        peak=peak_flops(built.execution, measure=measure),
        seen=training.batches.seen,
        passes=(lambda: optimizer.passes) if isinstance(optimizer, LBFGS) else None,
    )


Derivation = Callable[[float], dict[str, float]]
"""The metrics that follow from the mean of the training loss."""


@dataclass(frozen=True)
class Extras:
    """What the journal gets beside a training point's own values."""

    derive: Derivation | None = None
    load: MachineLoad | None = None
    bill: Callable[[], dict[str, float]] = dict

    def of(self, values: Mapping[str, float]) -> dict[str, float]:
        if "train/loss" not in values:
            return {}
        derived = self.derive(values["train/loss"]) if self.derive else {}
        # the joules of the last sample: nothing is read here
        cost = {f"cost/{name}": value for name, value in self.bill().items()}
        return derived | (self.load.sample() if self.load else {}) | cost


NOTHING = Extras()


def derivation(built: Built) -> Derivation | None:
    """The derivation of a training point's perplexity, where the loss is the negative log-likelihood.

    Bits a byte only where every token is one byte: which bytes a batch had is not counted.
    """
    loss, nll = built.config["loss"], built.training.metrics.get("nll")
    target = f"{cross_entropy.__module__}.{cross_entropy.__name__}"
    other = loss.get("label_smoothing") or loss.get("class_weights")
    if nll is not known.nll or loss.get("_target_") != target or other:
        return None
    size = 1.0 if bytes_per_token(built.data.train) == 1 else None
    return lambda mean: {f"train/{n}": v for n, v in known.derive({"nll": mean}, bytes_per_token=size).items()}


class RunRecorder:
    """Writes a run's points and checkpoints, and shows them."""

    def __init__(
        self,
        journal: Journal,
        progress: Progress,
        *,
        cost: StepCost,
        saver: Saver,
        monitor: str,
        samples: Samples | None = None,
        extras: Extras = NOTHING,
    ) -> None:
        self._journal = journal
        self._progress = progress
        self._cost = cost
        self._saver = saver
        self._samples = samples
        self._extras = extras
        self.undefined = Undefined(monitor)
        self.observers = Observers()

    @property
    def sample(self) -> tuple[int, str] | None:
        """The model's last text, and its step."""
        return self._samples.last if self._samples else None

    @property
    def saved_step(self) -> int | None:
        """The step of the checkpoint on the disk."""
        return self._saver.saved_step

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append a point with its derived values, and show it."""
        # FLOP and tokens so far, and the share of the processor's peak
        values = self._cost.at(step, values)
        self._journal.metrics(step, epoch, values | self._extras.of(values))
        self._progress.point(step, epoch, values)
        self.undefined.check(values)
        # at a validation, where training pauses anyway
        if self._samples and any(name.startswith("val/") for name in values):
            self._samples.write(step)
        self.observers.point(step, values)

    def save(self, checkpoint: Checkpoint, best: BestWeights | None) -> None:
        """Write the checkpoints, or begin to."""
        self._saver.save(self.observers.checkpoint(checkpoint), best)

    def price(self, bill: Callable[[], dict[str, float]]) -> None:
        """Have each training point say what the run has cost so far."""
        self._extras = replace(self._extras, bill=bill)

    def insist(self) -> None:
        """Wait until the last checkpoint is written.

        Raises `RunError` if the disk stays full.
        """
        self._saver.insist()

    def close(self) -> None:
        """Wait for the checkpoint under way; an error is a warning."""
        self._saver.close()
