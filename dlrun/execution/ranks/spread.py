"""A training of one process, made one of several."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.engine.reading.streams import StreamBatches
from dlrun.engine.state import State
from dlrun.engine.steppers import EagerStepper
from dlrun.errors import ConfigError
from dlrun.execution.ranks.agreement import AgreedPlan, Agreement
from dlrun.execution.ranks.batches import RankBatches
from dlrun.execution.ranks.evaluation import Shares
from dlrun.execution.ranks.gradient import RankGradient
from dlrun.execution.ranks.meter import RankLossMeter
from dlrun.execution.ranks.streams import RankStreamBatches
from dlrun.execution.ranks.trial import buffers_kept, first_samples
from dlrun.execution.ranks.world import World
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.metrics import is_of_batch
from dlrun.optimizers.descent import Descent
from dlrun.randomness import RANK, key
from dlrun.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Together:
    """The processes of a run, as `engine.protocols.Ranks` asks for them."""

    world: World
    agreement: Agreement
    shares: Shares
    words: str

    def describe(self) -> str:
        return self.words

    def meter(self, state: State) -> RankLossMeter:
        return RankLossMeter(state, self.world)

    def align(self, objective: Objective) -> None:
        self.world.send_first([*objective.buffers()])

    def stop(self, wanted: bool, signal: int | None) -> tuple[bool, int | None]:
        return self.agreement.stop(wanted, signal)

    def begin(self, checkpoint: Checkpoint) -> None:
        # as a file's bytes: a tensor of one GPU becomes one of another
        file = io.BytesIO()
        torch.save(checkpoint.to_dict(), file)
        self.world.broadcast(file.getvalue())

    def received(self) -> Checkpoint:
        """The state with which the first process begins."""
        file = io.BytesIO(self.world.broadcast(b""))
        return Checkpoint.from_dict(torch.load(file, map_location=self.shares.device, weights_only=True))

    def score(self, name: str, objective: Objective) -> Shares:
        if self.world.first:
            self.world.broadcast(name)
        self.world.send_first(_tensors(objective))
        return self.shares

    def asked(self) -> str | None:
        """The next split to evaluate; None at the end."""
        return self.world.broadcast()

    def dismiss(self) -> None:
        self.world.broadcast()

    def explain(self, error: BaseException) -> str | None:
        return self.world.explain(error)


def _tensors(objective: Objective) -> list[Tensor]:
    parts = chain.from_iterable(chain(m.parameters(), m.buffers()) for m in objective.modules)
    return [*dict.fromkeys(t.detach() if t.requires_grad else t for t in parts)]


def spread(training: Training, world: World, *, unused: bool, pieces: bool = False) -> Training:
    """The training as one of several processes takes part in it.

    `unused`: see `RankGradient`. With `pieces` it keeps a part of the weights (`sharded.ShardedTraining`), and has a
    gradient of its own. Raises `ConfigError` for parts that belong to one process.
    """
    check(training, world.size)
    optimizer, batches = training.optimizer, training.batches
    assert isinstance(optimizer, Descent)
    # a process that took its part again would keep the others waiting
    optimizer.memory.auto = False
    if not pieces:
        optimizer.across = RankGradient(training.objective, unused=unused)
    agreement = Agreement(world)
    plan = AgreedPlan(**{f.name: getattr(training.plan, f.name) for f in fields(training.plan)}, agreement=agreement)
    mine: dict[str, Any] = {field.name: getattr(batches, field.name) for field in fields(batches)}
    cut = RankStreamBatches if isinstance(batches, StreamBatches) else RankBatches
    return replace(
        training,
        batches=cut(**mine, rank=world.rank, ranks=world.size),
        plan=plan,
        # other masks of dropout for other samples
        seed=training.seed if world.first else key(training.seed, RANK, world.rank),
        make_stepper=EagerStepper,
        wrap_totals=None,
        ranks=Together(world, agreement, Shares(world, training.device), _describe(training, world, pieces)),
    )


def _describe(training: Training, world: World, pieces: bool) -> str:
    batches, each = training.batches, max(1, training.batches.size // world.size)
    modules = [inner for module in training.objective.modules for inner in module.modules()]
    own = []
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p for m in modules):
        own.append("dropout")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules):
        own.append("the statistics of batch norm")
    whole = isinstance(batches, StreamBatches) or hasattr(batches.augment, "vary_part")
    if batches.augment is not None and not whole:
        own.append("augmentation")
    apart = f"; {' and '.join(own)} of each are its own" if own else ""
    cut = " and a part of the weights (fsdp)" if pieces else ""
    return f"{world.size}, each with {each} samples of a batch{cut}{apart}"


def check(training: Training, processes: int) -> None:
    """Raise `ConfigError` for a training that several processes cannot share."""
    if (why := _why_not(training, processes)) is not None:
        raise ConfigError(f"trainer.devices={processes}: {why}")


def _why_not(training: Training, processes: int) -> str | None:
    optimizer, batches, objective = training.optimizer, training.batches, training.objective
    if not isinstance(optimizer, Descent):
        return f"{type(optimizer).__name__} computes its step in one process. Type trainer.devices=1"
    if getattr(training, "guard", None):
        return "trainer.on_spike goes back by some steps in one process. Type trainer.on_spike=null"
    if batches.size < processes:
        return (
            f"a batch of {batches.size} has no sample for some of the processes. "
            f"Type trainer.batch_size={processes} or more."
        )
    if any(map(is_of_batch, (objective.loss, objective.model))):
        return "the loss compares the samples of a batch, and each process has a part. Type trainer.devices=1"
    if training.own and (kept := [*training.own.saved, *training.own.lost]):
        return f"{', '.join(kept)} changes in training, and each process would have its own. Type trainer.devices=1"
    return None


def unused_parameters(training: Training) -> bool:
    """Have some parameters no influence on the loss of the first samples?

    Raises `ConfigError` for a loss whose parts do not add up.
    """
    objective = training.objective
    objective.train()
    with buffers_kept(objective):
        loss, weight = objective.weighed(first_samples(training))
        # before the buffers are put back: the backward pass of a batch norm reads them
        grads = torch.autograd.grad(loss, objective.params, allow_unused=True)
    if weight is not None and isinstance(objective.loss, WeightedSum):
        raise ConfigError(
            "trainer.devices: each term of the sum of losses has weights of its own, which the parts of a batch do not "
            "add up to. Type trainer.devices=1"
        )
    return any(g is None for g in grads)
