"""A run taken up again from its checkpoints."""

from __future__ import annotations

from math import isfinite

from dlrun.engine import loop
from dlrun.engine.loop import Training
from dlrun.engine.state import State
from dlrun.errors import UserError
from dlrun.runs.recording.observers import Observers
from dlrun.runs.recording.spikes import GuardedTraining
from dlrun.runs.weights import loading
from dlrun.storage import checkpoint
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output


def restore(training: Training, observers: Observers, folder: RunDir) -> State:
    """Load the last checkpoint into the parts; returns its state."""
    if not folder.last.exists():
        if folder.best.exists():
            output.warn(f"There is no {folder.last}: training begins at its first step again.")
        return State()
    last = checkpoint.load(folder.last, training.device)
    loading.put(training.objective.model, last.model, where=str(folder.last))
    if not last.own and len(training.objective.params) > sum(
        p.requires_grad for p in training.objective.model.parameters()
    ):
        raise UserError(
            f"{folder.path} was trained by an older dlrun, which left the loss's own weights at their first values. "
            f"Train it anew."
        )
    with checkpoint.taking(folder.last):
        state = loop.restore(training, last)
        observers.load(last.observers)
        if isinstance(training, GuardedTraining):
            training.resume(last, state)
    # a loss that is no number ranks as infinity
    if state.best_step is not None and state.best_rank is not None and isfinite(state.best_rank[1]):
        loading.check_own(folder, folder.last, state.best_step, {"val/loss": state.best_rank[1]})
    if folder.best.exists():
        best = checkpoint.load_best(folder.best, training.device)
        loading.check_own(folder, folder.best, best.step, best.metrics)
        # best.pt is written before last.pt: after a crash between them it is of a later step
        training.best = best if best.step == state.best_step else None
    if state.best_step is not None and not (folder.best.exists() and best.step >= state.best_step):
        found = f"is an older one, of step {best.step}" if folder.best.exists() else "is lost"
        output.warn(
            f"{folder.best} {found}: it held the weights of step {state.best_step}, the best validation so far. "
            f"From here on the best of the later validations is selected."
        )
        state.best_step, state.best_rank, state.waited = None, None, 0
    return state
