"""One run in several processes of torchrun: the first is the run, the others take part in its steps.

The first composes, writes and shows. It sends the others its checked configuration, from which they build the same
run; then all take the same steps, each on its part of a batch.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlrun.engine import loop
from dlrun.errors import ConfigError, DlrunError, RunError, UserError, place
from dlrun.execution import device
from dlrun.execution.device import Execution
from dlrun.execution.ranks.sharded import strategy
from dlrun.execution.ranks.sharded.training import shard
from dlrun.execution.ranks.spread import Together, check, spread, unused_parameters
from dlrun.execution.ranks.world import FOLDER, World, world
from dlrun.runs.build import Built, assemble, identity
from dlrun.runs.interrupt import Interrupt
from dlrun.runs.scoring import evaluate_splits
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.identity import Identity
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output


@dataclass(frozen=True)
class _Start:
    """What the other processes need for the same run."""

    config: dict[str, Any]
    execution: Mapping[str, Any]
    fingerprint: str
    sealed: bool
    unused: bool
    blocks: list[str] | None
    """Of weights that are cut (fsdp)."""


def share(built: Built, folder: RunDir) -> Built:
    """The run of all processes, from that of the first.

    Raises `UserError` for a run that they cannot share, and what has gone wrong in the others.
    """
    found = world()
    if found is None:
        return built
    found.keep(FOLDER, str(folder.path))
    if built.trainer.minutes is not None:
        raise ConfigError("trainer.minutes is measured in one process. Type trainer.steps=… or trainer.epochs=…")
    if built.trainer.profile == "memory":
        raise ConfigError("trainer.profile=memory measures one process. Type trainer.devices=1")
    if changing := built.observers.changing:
        raise ConfigError(
            f"observers.{changing[0]} changes the training of one process, and the others would go on without. Type "
            f"observers.{changing[0]}=null, or trainer.devices=1"
        )
    check(built.training, found.size)
    unused, blocks = unused_parameters(built.training), None
    if strategy.choose(built.trainer.strategy, built.training) == "fsdp":
        blocks = strategy.blocks_of(built.training, built.observers.during_training, unused=unused)
    start = _Start(built.config, built.execution.summary(), built.data.fingerprint, False, unused, blocks)
    found.broadcast(vars(start))
    wrong = [text for text in found.gather(None) if text]
    if wrong:
        raise RunError(str(wrong[0]))
    return _spread(built, found, start)


def identity_of(built: Built) -> str:
    """The identity that a run has once all processes share it."""
    found = world()
    if found is None:
        return built.identity.hash
    how = strategy.choose(built.trainer.strategy, built.training)
    return _identity(built, _execution(built, found, how)).hash


def _execution(built: Built, found: World, how: str) -> Execution:
    return replace(built.execution, devices=found.size, strategy=how, compile=False, why="")


def _identity(built: Built, execution: Execution) -> Identity:
    return identity(built.config, built.data, execution, built.initial_weights, built.quantities)


def _spread(built: Built, found: World, start: _Start) -> Built:
    execution = _execution(built, found, "ddp" if start.blocks is None else "fsdp")
    training, cut = built.training, start.blocks is not None
    if start.blocks is not None:
        training = shard(training, found, start.blocks, unused=start.unused)
    training = spread(training, found, unused=start.unused, pieces=cut)
    return replace(built, training=training, execution=execution, identity=_identity(built, execution))


def follow() -> int:
    """Take part in the first process's run; returns the exit code."""
    found = world()
    assert found is not None
    with output.only():
        try:
            start: dict[str, Any] | None = found.broadcast()
            # the first has said why
            return UserError.exit_code if start is None else _follow(found, _Start(**start))
        except Exception as error:
            if found.explain(error) is None:
                said = isinstance(error, DlrunError)
                found.note_failure(str(error) if said else f"{type(error).__name__}: {error}{place(error)}")
                traceback.print_exc()
            return RunError.exit_code


def _follow(found: World, start: _Start) -> int:
    wrong = None
    try:
        built = assemble(start.config, resumed_execution=start.execution, try_steps=False)
        if built.data.fingerprint != start.fingerprint:
            wrong = f"its data set {built.data.name} is another one than that of process 0"
    except Exception as error:
        wrong = str(error)
    if any(found.gather(wrong and f"Process {found.rank} of {found.size}: {wrong}")):
        return UserError.exit_code
    built = _spread(built, found, start)
    device.apply(built.execution)
    training = built.training
    assert isinstance(training.ranks, Together)
    with Interrupt() as interrupt:
        state = loop.restore(training, training.ranks.received())
        state = loop.train(training, state, _Silent(), interrupt.stops(training.ranks))
        training.make_whole()
        if interrupt.signal is not None and state.step < training.plan.steps and not training.over(state):
            return 128 + interrupt.signal
        while (name := training.ranks.asked()) is not None:
            evaluate_splits(built, name)
    return 0


class _Silent:
    """A recorder of the processes that write nothing."""

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Leave it to the first process."""

    def save(self, checkpoint: Checkpoint, best: BestWeights | None) -> None:
        """Leave it to the first process."""
