"""Spikes of the training loss: found where losses are read, and left out.

A loss is a spike if it is not finite, or lies more than `SIGMAS` standard deviations above the mean of the last
`HISTORY` losses that were none, of which there are half as many at least. So is defined what the training of OLMo
leaves out (OLMo-core, `SkipStepOptimizer`: 128 losses, 6 deviations). It is a function of the losses before, so a run
that is resumed finds the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf, isfinite, sqrt
from typing import Any, Literal

import torch

from dlrun.engine import loop
from dlrun.engine.loop import Training
from dlrun.engine.meters import LossMeter
from dlrun.engine.protocols import Recorder, Stepper
from dlrun.engine.reading.streams import StreamBatches
from dlrun.engine.state import State
from dlrun.errors import ConfigError, NonFinite
from dlrun.runs.recording.checkpoint_writer import on_host
from dlrun.runs.recording.replaying import are_finite, replay, samples_of, words
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.terminal import output
from dlrun.types import Batch, Update

Action = Literal["skip", "rewind", "stop"]
HISTORY, SIGMAS = 128, 6.0
"""As in OLMo-core."""
MOST = 10
"""Spikes within `HISTORY` steps after which the run ends: it diverges."""


class Spike(NonFinite):
    """The loss of a step is a spike; `why` says it in words."""


@dataclass
class Guard:
    """What a run does about spikes, and the states that it goes back to.

    `kept` are the states at the last two logging steps without a spike before them.
    """

    action: Action
    kept: list[Checkpoint] = field(default_factory=list)
    state: State = field(default_factory=State)

    def look(self, training: Training) -> None:
        """Raise `Spike` for the first one among the losses since the last point."""
        state = self.state
        history, first = deque(state.recent, maxlen=HISTORY), state.step - len(state.window) + 1
        for step, (loss, count) in enumerate(state.window, first):
            if count and (why := _why(loss, history)):
                raise Spike(f"The loss of step {step} is {loss:.6g}, {why}.", step=step, loss=loss)
            if count:
                history.append(loss)
        if not are_finite(training.objective.params):
            loss = state.window[-1][0] if state.window else inf
            text = f"After step {state.step} the weights are no finite numbers."
            raise Spike(text, step=state.step, loss=loss)

    def keep(self, training: Training) -> None:
        """Keep the present state, and the one before."""
        # in host memory: a GPU may have no room for it
        self.kept = [*self.kept[-1:], on_host(Training.checkpoint(training, self.state))]

    def recover(self, spike: Spike, training: Training) -> None:
        """Set a run back to the step before a spike, which is left out; a run that stops goes back all the same."""
        state, step = self.state, spike.step
        assert step is not None
        seen = state.step
        base = self.kept[0 if self.action == "rewind" else -1]
        loop.restore(training, _copy(base, training.device))
        if self.action != "rewind":
            step = self._before(base, step, training)
        lost = seen - (step - 1)
        state.window = state.window[: len(state.window) - lost]
        if self.action == "rewind":
            self.kept = self.kept[:1]
            ours = state.step - len(state.window) - lost
            state.window = [each if ours + n < base.step else (0.0, 0.0) for n, each in enumerate(state.window)]
        state.step = step - 1
        state.spikes = [*state.spikes, step]

    def _before(self, base: Checkpoint, step: int, training: Training) -> int:
        """Replay up to the step before a spike, or before an earlier one that left weights that are not finite."""
        while True:
            replay(training, base.step, step - 1)
            if are_finite(training.objective.params) or step - 1 <= base.step:
                return step
            step -= 1
            loop.restore(training, _copy(base, training.device))


def _copy(kept: Checkpoint, device: torch.device) -> Checkpoint:
    """A copy on a device: an optimizer goes on in the tensors that it is given."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(each) for name, each in value.items()}
        return (
            [*map(moved, value)]
            if isinstance(value, list)
            else (value.to(device, copy=True) if isinstance(value, torch.Tensor) else value)
        )

    return Checkpoint.from_dict(moved(kept.to_dict()))


def _why(loss: float, history: Sequence[float]) -> str | None:
    if not isfinite(loss):
        return "which is no finite number"
    if len(history) < HISTORY // 2:
        return None
    mean = sum(history) / len(history)
    spread = sqrt(sum((each - mean) ** 2 for each in history) / (len(history) - 1))
    if loss > mean + SIGMAS * spread:
        return f"more than {SIGMAS:.0f} standard deviations ({spread:.3g}) above the mean of the last, {mean:.6g}"
    return None


class SpikeMeter:
    """The losses since the last point, each looked at where they are read."""

    def __init__(self, meter: LossMeter, training: GuardedTraining) -> None:
        self._meter, self._training = meter, training
        self.add = meter.add

    def check(self) -> None:
        self._meter.keep()
        self._training.guard.look(self._training)

    def mean(self) -> dict[str, float]:
        self.check()
        state = self._training.guard.state
        state.recent = [*state.recent, *(loss for loss, count in state.window if count)][-HISTORY:]
        means = self._meter.mean()
        self._training.guard.keep(self._training)
        return means


class LeavingOut:
    """A stepper that leaves the steps of spikes out."""

    def __init__(self, stepper: Stepper, guard: Guard) -> None:
        self._stepper, self._guard = stepper, guard

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return self._stepper.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        left_out, updates = self._guard.state.spikes, list[Update]()
        for each, batch in enumerate(block, step):
            if each + 1 in left_out:
                # counts for nothing in the mean
                nothing = torch.zeros((), device=batch.tensors()[0].device)
                updates.append(Update(nothing, None, nothing))
            else:
                updates += self._stepper.take(each, [batch])
        return updates


@dataclass
class GuardedTraining(Training):
    """A training whose spikes are left out."""

    guard: Guard = field(default_factory=lambda: Guard("stop"))

    def stepper(self) -> Stepper:
        return LeavingOut(super().stepper(), self.guard)

    def loss_meter(self, state: State) -> Any:
        self.guard.state = state
        meter = super().loss_meter(state)
        assert isinstance(meter, LossMeter)
        self._losses = SpikeMeter(meter, self)
        # of a run that is resumed the checkpoint has those to rewind to
        if not self.guard.kept or self.guard.action != "rewind":
            self.guard.keep(self)
        return self._losses

    def validate(self, state: State) -> dict[str, float]:
        # weights of a spike are not evaluated: they could be the best by chance
        self._losses.check()
        return super().validate(state)

    def checkpoint(self, state: State) -> Checkpoint:
        found = super().checkpoint(state)
        rewinds = self.guard.action == "rewind"
        return replace(found, kept=[each.to_dict() for each in self.guard.kept]) if rewinds else found

    def resume(self, checkpoint: Checkpoint, state: State) -> None:
        """Take up what a checkpoint has kept to rewind to, and what was left out."""
        self.guard.kept = [Checkpoint.from_dict(each) for each in checkpoint.kept]
        self.guard.state = state


def guarded(training: Training, action: Action | None) -> Training:
    """A training with a guard against spikes, if an action is given.

    Raises `ConfigError` for a stream, which cannot go back.
    """
    if action is None:
        return training
    if isinstance(training.batches, StreamBatches) and action != "stop":
        raise ConfigError(
            f"trainer.on_spike={action} goes back by some steps, and a stream is read forwards. "
            "Type trainer.on_spike=null"
        )
    values: dict[str, Any] = {each.name: getattr(training, each.name) for each in fields(Training)}
    return GuardedTraining(**values, guard=Guard(action))


def train(
    training: Training,
    state: State,
    recorder: Recorder[float, Checkpoint, BestWeights | None],
    stop: Callable[[], bool] = lambda: False,
) -> State:
    """`loop.train`, which goes on after a spike as the run's guard says."""
    while True:
        try:
            return loop.train(training, state, recorder, stop)
        except Spike as spike:
            assert isinstance(training, GuardedTraining)
            _handle(spike, training, state, recorder)


def _handle(
    spike: Spike,
    training: GuardedTraining,
    state: State,
    recorder: Recorder[float, Checkpoint, BestWeights | None],
) -> None:
    guard, base = training.guard, training.guard.kept[0].step
    near = [step for step in state.spikes if step > state.step - HISTORY]
    if guard.action == "stop" or len(near) >= MOST:
        if len(near) >= MOST:
            raise NonFinite(
                f"{spike} It is spike {len(near) + 1} within {HISTORY} steps: the training diverges. A smaller "
                "optimizer.lr, a warm-up (schedule.warmup=0.1) or trainer.clip=1 often helps.",
                step=spike.step,
                loss=spike.loss,
            ) from None
        guard.recover(spike, training)
        state.spikes.pop()
        recorder.save(training.checkpoint(state), training.best)
        raise NonFinite(f"{spike} The state before the step is saved.", step=spike.step, loss=spike.loss) from None
    guard.recover(spike, training)
    step = state.spikes[-1]
    places = samples_of(training, step)
    batch = f" Its batch has {words(places)} of the training split." if places else ""
    done = (
        f"step {step} is left out"
        if guard.action == "skip"
        else (f"back to the weights of step {base}; the steps {base + 1} to {step} are left out")
    )
    output.warn(f"{spike}{batch} trainer.on_spike={guard.action}: {done}.")
