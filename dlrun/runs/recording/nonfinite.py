"""A run whose loss is no finite number: which step and samples it was, and that step taken again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.engine import loop
from dlrun.engine.evaluation import evaluating
from dlrun.engine.loop import Training
from dlrun.engine.state import State
from dlrun.errors import NonFinite, UserError
from dlrun.execution import device
from dlrun.execution.device import Execution
from dlrun.nests.nest import leaves
from dlrun.randomness import STEP, key, seed_default
from dlrun.runs.recording.observers import Observers
from dlrun.runs.recording.replaying import are_finite, batch_of, odd_samples, replay, samples_of, words
from dlrun.runs.recording.restore import restore
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import Checkpoint
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import Batch

LISTED = 10_000
"""Samples of a batch that the summary lists, at most."""


def locate(training: Training, folder: RunDir, error: NonFinite) -> NonFinite:
    """Write the step and its samples into the summary; returns the error with their names."""
    if error.step is None:
        return error
    places, odd = samples_of(training, error.step), list[int]()
    # samples that are read from files may fail to be: the run has an error already
    with suppress(Exception):
        odd = odd_samples(training.batches.split, places, training.device) if places else []
    with folder.edit_summary() as summary:
        summary.nonfinite = {
            "step": error.step,
            "loss": str(error.loss),
            "samples": (places or [])[:LISTED],
            "odd": odd,
        }
    named = f" Its batch has {words(places)} of the training split." if places else ""
    if odd:
        named += f" Not finite are numbers of {words(odd)}."
    if not summary.stacked:
        named += (
            f" `dlrun resume {folder.id} --from-nan` takes the step again and shows where it begins, "
            f"`dlrun resume {folder.id} trainer.on_spike=skip` leaves it out and goes on."
        )
    return NonFinite(f"{error}{named}", step=error.step, loss=error.loss)


def look(training: Training, execution: Execution, observers: Observers, folder: RunDir) -> None:
    """Take the step again at which a run's loss was no finite number, and say where that begins.

    The state before it is written beside the other checkpoints. Raises `UserError` for a run without such a step.
    """
    found = folder.summary().nonfinite
    if not found:
        raise UserError(
            f"{folder.path} has no step whose loss was no finite number. `dlrun resume {folder.id}` goes on with it."
        )
    device.apply(execution)
    step = int(found["step"])
    with folder.hold():
        state = _reach(training, restore(training, observers, folder), step)
        checkpoint.save(folder.before_nan, training.checkpoint(state))
    if state.step + 1 < step:
        output.say(
            f"Step {state.step + 1} has a finite loss and leaves weights that are none: the loss of step {step} is its "
            "doing. This is that step:"
        )
    _show(training, state.step + 1)
    output.say(f"  before   the state before the step is in {folder.before_nan}")


def _reach(training: Training, state: State, step: int) -> State:
    """Train up to the step before `step`, or before an earlier one that leaves weights that are not finite."""
    again = step - 1 - state.step
    output.say(f"from the checkpoint of step {state.step} on, {counted(again, 'step')} again …")
    if not are_finite(training.objective.params):
        output.warn(f"The weights of step {state.step} are no finite numbers already: a step before it is the cause.")
        again = 0
    for _ in range(again):
        kept: Checkpoint = Checkpoint.from_dict(loop.clone_state(training.checkpoint(state).to_dict()))
        replay(training, state.step, state.step + 1)
        if not are_finite(training.objective.params):
            loop.restore(training, kept)
            break
        state.step += 1
    state.window = []
    return state


def _show(training: Training, step: int) -> None:
    """Say which numbers of a step are not finite first."""
    objective, batch = training.objective, batch_of(training, step)
    places = samples_of(training, step)
    objective.train()
    if training.thaw:
        training.thaw.apply(objective, step - 1)
    seed_default(training.device, value := key(training.seed, STEP, step - 1))
    if training.own and training.own.drawn:
        training.own.seed(value)
    odd: list[str] = []
    with _watching(objective.modules, odd):
        loss = objective(batch)
    grads = torch.autograd.grad(loss, objective.params, allow_unused=True)
    bad = [name for name, g in zip(objective.names, grads, strict=True) if g is not None and not are_finite([g])]
    output.say(f"  step     {step}" + (f", {words(places)} of the training split" if places else ""))
    inputs = odd_samples(training.batches.split, places, training.device) if places else []
    fine = all(are_finite([t]) for t in batch.tensors() if t.is_floating_point())
    said = "finite" if fine else f"not finite: {words(inputs)}" if inputs else "not finite in the batch"
    output.say(f"  inputs   {said}")
    output.say(f"  forward  {odd[0] if odd else 'every layer has finite outputs'}")
    alone = "" if are_finite([loss]) or not places else _alone(training, batch, places)
    output.say(f"  loss     {loss.item():.6g}{alone}")
    output.say(
        f"  gradient {'finite' if not bad else 'not finite: ' + ', '.join(bad[:8]) + (', …' if bad[8:] else '')}"
    )


def _alone(training: Training, batch: Batch, places: list[int]) -> str:
    """The samples whose own loss is not finite, in words."""
    objective, found = training.objective, []
    with evaluating(objective):
        for row, place in enumerate(places[:LISTED]):
            with suppress(Exception):  # of one sample a loss may have no value
                if not are_finite([objective(batch.rows(slice(row, row + 1)))]):
                    found.append(place)
    return f"; alone it is not finite of {words(found)}" if found else "; of each sample alone it is finite"


@contextmanager
def _watching(modules: list[nn.Module], odd: list[str]) -> Iterator[None]:
    """Append the first layer whose outputs are not finite, and whether its inputs were."""

    def hook(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if not odd and not _finite(outputs):
                given = "finite inputs" if _finite(inputs) else "inputs that are not finite"
                odd.append(
                    f"first not finite: the output of {name or 'the model'} (`{type(module).__name__}`), of {given}"
                )

        return look

    handles = [m.register_forward_hook(hook(name)) for each in modules for name, m in each.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _finite(values: Any) -> bool:
    tensors = [t for t in leaves(values) if isinstance(t, Tensor) and t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in tensors)
