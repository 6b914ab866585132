"""From a configuration to a run, ready to train.

`build` fails before anything is trained: it checks the configuration, loads the data set (missing or altered files
show here), makes the model, and takes the first steps, which are undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from dlrun.config.check import GROUPS, SETTINGS, check_config
from dlrun.config.settings import Evaluation, Tracking, Trainer
from dlrun.engine.ema import Average
from dlrun.engine.evaluation import batch_size_for
from dlrun.engine.loop import Training, TrainingBatches
from dlrun.engine.parameters.kinds import norm_statistics
from dlrun.engine.parameters.values import check_small
from dlrun.engine.plan import Plan, parse_interval
from dlrun.engine.reading.streams import order_of
from dlrun.errors import ConfigError, UserError
from dlrun.execution import compile_policy, compiled, memory_format
from dlrun.execution.cuda_graphs import maybe_graphed
from dlrun.execution.device import Execution, threads_for
from dlrun.execution.memory_format import MemoryFormat
from dlrun.runs.dry_run.batches import make_batches
from dlrun.runs.dry_run.memory import limit
from dlrun.runs.dry_run.own_state import check_repeatable, make_forward
from dlrun.runs.dry_run.parts import check_schedule, init_optimizer
from dlrun.runs.dry_run.passes import Trial, dry_run
from dlrun.runs.measures.monitor import set_monitor
from dlrun.runs.measures.quantities import are_of_batches, quantities
from dlrun.runs.parts import Parts, make_dataset, make_parts
from dlrun.runs.recording.observers import Observers, make_observers
from dlrun.runs.recording.spikes import guarded
from dlrun.runs.weights import overlap
from dlrun.runs.weights.learned import Learned
from dlrun.runs.weights.overlap import begin
from dlrun.storage.identity import Identity, identify
from dlrun.storage.overlap import Origin, Shared
from dlrun.types import Data, Quantity


@dataclass(frozen=True)
class Built:
    """A run, ready to train."""

    config: dict[str, Any]
    data: Data
    training: Training
    execution: Execution
    trainer: Trainer
    evaluation: Evaluation
    tracking: Tracking
    flop_per_step: int
    parameters: int
    trained: int
    """Of `parameters`, those that train."""
    quantities: Mapping[str, Quantity]
    identity: Identity
    initial_weights: str | None = None
    """The SHA-256 of the weights that `init_from` names."""
    initial_learned: Learned | None = None
    """What they have learned from."""
    origin: Origin = field(default_factory=Origin)
    """What they know of this run's validation and test samples."""
    shared: Mapping[str, Shared] = field(default_factory=dict)
    """The samples that the splits share."""
    left_out: str = ""
    """Why metrics of the task are not computed."""
    observers: Observers = field(default_factory=Observers)


class FirstPass(NamedTuple):
    """The outcome of a successful first pass."""

    memory_format: MemoryFormat
    flop_per_sample: float

    def per_step(self, training: Training) -> int:
        """FLOP of a step."""
        return round(self.flop_per_sample * training.batches.size)


def build(config: DictConfig, *, data: Data | None = None, try_steps: bool = True) -> Built:
    """Build the run of a configuration.

    `data` is the data set, if it is loaded already. `try_steps`: the dry run takes real steps; else it makes one pass
    over a few samples. Raises `UserError` with one message: what is wrong, and what to type.
    """
    return assemble(check_config(config), data=data, try_steps=try_steps)


def assemble(
    plain: dict[str, Any],
    *,
    data: Data | None = None,
    resumed_execution: Mapping[str, Any] | None = None,
    try_steps: bool = True,
) -> Built:
    """Build the run of a checked configuration.

    `resumed_execution` is the summary's `execution` of a run that has begun: `auto` stands for the same again, and
    its first steps need no trial.
    """
    trainer, evaluation, tracking = (cls(**plain[name]) for name, cls in SETTINGS.items())
    observers = make_observers(plain)
    data = data or make_dataset(plain)
    # of a run that is resumed the weights it began with are not read again; beside `pretrain`, some begin at random
    began = plain["init_from"] or plain.get("pretrain") or resumed_execution is not None
    if plain.get("init_from_skip") and not began:
        raise ConfigError("init_from_skip leaves names out of init_from, which is not given. Type init_from=RUN.")
    learned, origin = begin(plain, data)
    parts = make_parts(plain, trainer, data)
    # what was chosen for another kind of device is no guide to this one
    decided = resumed_execution or {}
    if decided.get("device") != parts.device.type:
        decided = {}  # on another device all is decided anew
    memory = limit(parts.optimizer, parts.objective, parts.data.train, decided.get("micro_batch", ()))
    requested = trainer.memory_format if trainer.memory_format != "auto" else decided.get("memory_format", "auto")
    batches = make_batches(parts.data, trainer, parts.optimizer, seed=plain["seed"], device=parts.device)
    trial = _trial(plain, parts, batches, trainer)
    new = resumed_execution is None
    before = parts.own.now()
    first_pass = _try_formats(trial, parts, str(requested), steps=new and try_steps, averages=new)
    parts.own.learn(before, make_forward(parts.objective, parts.metrics, parts.data.train, parts.device))
    check_repeatable(parts.objective.model, parts.own)
    # its state lies in memory as the weights do by now
    init_optimizer(parts.optimizer, parts.objective, trial.targets["optimizer"])
    parts.own.know_optimizer(parts.optimizer)
    measured = quantities(plain, parts, evaluation.batch_size)
    training = _make_training(plain, parts, batches, trainer, evaluation)
    training.memory = memory
    training = guarded(training, trainer.on_spike)
    training.schedule = observers.scaled(training.schedule)
    set_monitor(training, evaluation, parts.data, measured)
    execution = _choose_execution(trainer, parts, training, first_pass, decided)
    if execution.compile:
        training.make_stepper = compiled.make_stepper
        training.wrap_totals = partial(maybe_graphed, device=parts.device)
    return Built(
        config=plain,
        data=parts.data,
        training=training,
        execution=execution,
        trainer=trainer,
        evaluation=evaluation,
        tracking=tracking,
        flop_per_step=first_pass.per_step(training),
        parameters=sum(p.numel() for module in parts.objective.modules for p in module.parameters()),
        trained=sum(p.numel() for p in parts.objective.params),
        quantities=measured,
        identity=identity(plain, parts.data, execution, parts.initial_weights, measured),
        initial_weights=parts.initial_weights,
        initial_learned=learned,
        origin=origin,
        shared=overlap.find_shared(data),
        left_out=parts.left_out,
        observers=observers,
    )


def identity(
    plain: dict[str, Any], data: Data, execution: Execution, initial: str | None, measured: Mapping[str, Quantity]
) -> Identity:
    """The identity of the run of a checked configuration, which has `measured` these quantities.

    `initial` is the SHA-256 of its first weights. Their path is no part of it: a run that is trained further has other
    weights than before.
    """
    return identify(
        plain | {"init_from": initial},
        data.fingerprint + order_of(data.train, plain["trainer"]["workers"]),
        # several round in another order, and drop out other activations
        device=execution.kind,
        precision=execution.precision,
        torch=torch.__version__,
        of_batches=are_of_batches(measured),
    )


def make_plan(trainer: Trainer, per_epoch: int, steps: int | None = None) -> Plan:
    """The plan of a run, for `steps` if they are given."""
    # `trainer.fast` takes two steps and does all that a run does at each: log, evaluate, save
    if trainer.fast:
        return Plan(steps=2, per_epoch=per_epoch, log_every=1, evaluate_every=1, checkpoint_every=1)
    if steps is None:
        steps = trainer.steps or max(1, round((trainer.epochs or 1) * per_epoch))
    evaluations = parse_interval(trainer.evaluate_every, where="trainer.evaluate_every")
    checkpoints = parse_interval(trainer.checkpoint_every, where="trainer.checkpoint_every", times=True)
    timed = checkpoints.unit == "seconds"
    return Plan(
        steps=steps,
        per_epoch=per_epoch,
        # some 100 points a curve, and one at least every 50 steps
        log_every=trainer.log_every or max(1, min(50, steps // 100)),
        evaluate_every=evaluations.steps(per_epoch),
        checkpoint_every=None if timed else checkpoints.steps(per_epoch),
        checkpoint_seconds=checkpoints.number if timed else None,
    )


def _trial(plain: dict[str, Any], parts: Parts, batches: TrainingBatches, trainer: Trainer) -> Trial:
    return Trial(
        objective=parts.objective,
        optimizer=parts.optimizer,
        batches=batches,
        metrics=parts.metrics,
        validation=parts.data.validation,
        own=parts.own,
        spec=parts.data.spec,
        # those of `trainer.minutes` are measured later
        plan_steps=None if trainer.minutes else make_plan(trainer, batches.per_epoch).steps,
        targets=_targets(plain),
    )


def _try_formats(trial: Trial, parts: Parts, requested: str, *, steps: bool, averages: bool) -> FirstPass:
    """Take the dry run in the best memory format, else in the plain one."""
    model = parts.objective.model
    chosen = memory_format.choose(requested, model, parts.optimizer, parts.device, parts.precision)
    formats: list[MemoryFormat] = [chosen]
    if chosen not in (requested, "contiguous"):
        # a model may rely on its activations' order, as `x.view(len(x), -1)` does: `auto` leaves it its own
        formats.append("contiguous")
    for attempt in formats:
        memory_format.apply(model, attempt)
        try:
            flop = dry_run(trial, steps=steps, averages=averages)
        except UserError:
            if attempt == formats[-1]:
                raise
        else:
            break
    return FirstPass(attempt, flop)


def _make_training(
    plain: dict[str, Any], parts: Parts, batches: TrainingBatches, trainer: Trainer, evaluation: Evaluation
) -> Training:
    training = Training(
        objective=parts.objective,
        batches=batches,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        plan=make_plan(trainer, batches.per_epoch),
        seed=plain["seed"],
        device=parts.device,
        validation=parts.data.validation,
        metrics=parts.metrics,
        evaluation_batch_size=batch_size_for(evaluation.batch_size, parts.data.spec),
        patience=trainer.patience,
        average=Average(parts.objective.params, trainer.ema, norm_statistics(parts.objective.model))
        if trainer.ema
        else None,
        own=parts.own,
        thaw=parts.thaw,
        log_parameters=trainer.log_parameters,
    )
    if trainer.log_parameters:
        check_small(parts.objective)
    check_schedule(training.schedule, training.plan.steps, target=plain["schedule"]["_target_"])
    return training


def _choose_execution(
    trainer: Trainer, parts: Parts, training: Training, first_pass: FirstPass, resumed_execution: Mapping[str, Any]
) -> Execution:
    flop = first_pass.per_step(training)
    profile = compile_policy.StepProfile(
        parameters=len(parts.objective.params),
        flop=flop,
        # the steps of `trainer.minutes` are measured later, with the execution decided here
        steps=None if trainer.minutes else training.plan.steps,
        device=parts.device,
        why_not=compiled.why_not(training),
    )
    decision = compile_policy.decide(trainer.compile, profile, before=resumed_execution)
    return Execution(
        device=parts.device,
        precision=parts.precision,
        threads=trainer.threads or threads_for(flop, parts.device),
        deterministic=trainer.deterministic,
        memory_format=first_pass.memory_format,
        compile=decision.compile,
        why=decision.why,
        micro_batch=training.memory.to_list(),
    )


def _targets(plain: dict[str, Any]) -> dict[str, str]:
    parts = {name: plain[name] for name in GROUPS} | {
        f"metrics.{name}": part for name, part in plain["metrics"].items() if part
    }
    return {name: part["_target_"] for name, part in parts.items()}
