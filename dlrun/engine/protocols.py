"""The contracts of the loop: with an optimizer, a training, a stepper, a recorder.

Members that differ between one run and a stack of runs are read-only properties: mypy would want a plain
attribute to have the same type in both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from dlrun.engine.ema import Average
from dlrun.engine.forward.totals import Total
from dlrun.engine.objective import Objective
from dlrun.engine.own.state import OwnState
from dlrun.engine.parameters.names import Named
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.storage.checkpoint import Checkpoint
from dlrun.types import Batch, Split, Update

Rate = float | Tensor
"""A learning rate: a number, or a tensor where a step is traced, or where a stack has one for each run, [R]."""

TotalsFn = Callable[[Batch], Mapping[str, Total]]
"""The totals of the loss and of each metric over a batch."""

Value = TypeVar("Value")
"""A value of a curve: `float`, or of a stack a list with a number for each run."""
Saved_co = TypeVar("Saved_co", covariant=True)
"""A `Checkpoint`, or of a stack a list with one for each run."""
Saved_contra = TypeVar("Saved_contra", contravariant=True)
Best_co = TypeVar("Best_co", covariant=True)
"""The `BestWeights` so far, or of a stack a list of them."""
Best_contra = TypeVar("Best_contra", contravariant=True)


class Shares(Protocol):
    """The part of an evaluation that one of several processes computes."""

    def takes(self, chunk: int) -> bool:
        """Is the chunk of this number this process's?"""

    def exchange(self, found: Iterable[Mapping[str, Total]]) -> Iterator[Mapping[str, Total]]:
        """Yield the totals of all chunks in order, from those of this process."""


class Optimizer(Protocol):
    """Changes the objective's parameters by one step on one batch."""

    @property
    def lr(self) -> float:
        """The learning rate, before the schedule."""

    def init(self, objective: Objective) -> None:
        """Allocate the state for the parameters of `objective`."""

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Change the parameters in place, at the rate `lr`."""

    def state_dict(self) -> dict[str, object]:
        """The state as plain numbers and tensors, for `weights_only=True`."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore a state of `state_dict`, after `init`."""


class Recorder(Protocol[Value, Saved_contra, Best_contra]):
    """Receives the curves and the checkpoints of a training."""

    def point(self, step: int, epoch: float, values: dict[str, Value]) -> None:
        """Record a point of the curves."""

    def save(self, checkpoint: Saved_contra, best: Best_contra) -> None:
        """Save a checkpoint, and the best weights if new."""


class Losses(Protocol[Value]):
    """The losses since the last point of the curves."""

    def add(self, update: Update, batch: Batch) -> None:
        """Append a step's loss, without waiting for the device."""

    def check(self) -> None:
        """Read the losses; raise `NonFinite` for NaN and infinity.

        In a stack such a run ends instead.
        """

    def mean(self) -> dict[str, Value]:
        """The mean over the samples, or of weights over the weights; begins the next point."""


class Stepper(Protocol):
    """Takes the steps of a training, block by block."""

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        """Yield the blocks of batches from `step` on, without end.

        Closing it ends the workers that read a data set.
        """

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take one step for each batch, after `step` steps."""


class Ranks(Protocol):
    """The processes of a run, as one of them sees them."""

    @property
    def shares(self) -> Shares:
        """What this process computes of an evaluation."""

    def meter(self, state: State) -> Losses[float]:
        """Collect the losses of whole batches."""

    def align(self, objective: Objective) -> None:
        """Give all processes the buffers of the first, which differ where they depend on the samples seen."""

    def stop(self, wanted: bool, signal: int | None) -> tuple[bool, int | None]:
        """Whether all processes stop after this step, and for which signal; asked once a block.

        `wanted` and `signal` are this one's: one that wants to stop is enough.
        """

    def begin(self, checkpoint: Checkpoint) -> None:
        """Have all processes begin with this state."""

    def score(self, name: str, objective: Objective) -> Shares:
        """Have the others take this one's weights and evaluate a split with it."""

    def describe(self) -> str:
        """How the run is shared, and what is not as in one process, in words."""

    def dismiss(self) -> None:
        """Let the others end: nothing is left to evaluate."""

    def explain(self, error: BaseException) -> str | None:
        """Why another process has ended, if that is what an error comes from."""


class Differentiable(Named, Protocol):
    """A model's loss as a function of its parameters."""

    model: nn.Module

    @property
    def params(self) -> list[Tensor]:
        """The parameters; a step changes them in place."""

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The model, and the loss if it is a module."""

    def train(self) -> None:
        """Set them to training."""

    def buffers(self) -> Iterator[Tensor]:
        """Their buffers."""


class BatchSource(Protocol):
    """The training batches as a function of the step."""

    @property
    def size(self) -> int:
        """Samples in a batch, of all runs together."""

    def seen(self, steps: int) -> int:
        """Samples in the first `steps` batches."""

    def start(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches from `step` on, without end."""


class HasRate(Protocol):
    """An optimizer, as a schedule sees it."""

    @property
    def lr(self) -> Rate:
        """The learning rate, before the schedule."""


class Steppable(Protocol):
    """A run or a stack, as a stepper sees it."""

    plan: Plan
    seed: int
    device: torch.device
    average: Average | None
    own: OwnState | None

    @property
    def objective(self) -> Differentiable:
        """The model and the loss."""

    @property
    def batches(self) -> BatchSource:
        """The training batches."""

    @property
    def optimizer(self) -> HasRate:
        """The optimizer."""

    def step(self, batch: Batch, rate: Rate) -> Update:
        """Take one optimizer step."""

    def rate(self, step: int) -> Rate:
        """The learning rate after `step` steps."""


MakeStepper = Callable[[Steppable], Stepper]
"""Makes what takes the steps of a run or of a stack."""


class Trainable(Steppable, Protocol[Value, Saved_co, Best_co]):
    """One run, or a stack of runs, for `loop.train`.

    `loop.Training` is the one, `stacked.training.StackedTraining` the other.
    """

    validation: Split | None
    log_parameters: bool

    @property
    def best(self) -> Best_co:
        """The weights and metrics of the best validation so far."""

    def stepper(self) -> Stepper:
        """Make the stepper."""

    def loss_meter(self, state: State) -> Losses[Value]:
        """Collect the losses between two points of the curves."""

    def validate(self, state: State) -> dict[str, Value]:
        """Evaluate the validation split; keep the best weights."""

    def over(self, state: State) -> bool:
        """Does the training end before its plan?"""

    def checkpoint(self, state: State) -> Saved_co:
        """The state of all parts, to resume from."""
