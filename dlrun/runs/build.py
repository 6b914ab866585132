"""From a configuration to the parts of a run.

`build` decides before anything is done: the configuration is checked, the data set loaded (missing
or altered files show here), the model built, and one forward and backward pass taken on a few
samples. What it returns can be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from dlrun import metrics as known_metrics
from dlrun.config import instantiate
from dlrun.config.check import PARTS, SETTINGS, SIZES, check_config
from dlrun.config.settings import Evaluation, Tracking, Trainer
from dlrun.datasets.tensors.subset import bytes_per_token, take_first
from dlrun.engine.batches import Batches, LoaderSplit
from dlrun.engine.ema import Average
from dlrun.engine.evaluation import batch_size_for
from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan, checkpoints, in_steps
from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError, did_you_mean
from dlrun.execution import compile_policy
from dlrun.execution import compiled as program
from dlrun.execution import memory_format as layout
from dlrun.execution.cuda_graphs import maybe_graphed
from dlrun.execution.device import Execution, autocast, choose, threads_for
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.randomness import INITIALISATION, key, seed_default
from dlrun.runs import weights
from dlrun.runs.rehearsal import check_schedule, check_tokenizer, check_walk, rehearse
from dlrun.storage.identity import Identity, identify
from dlrun.types import Data, Metric, Spec

HIGHER_IS_BETTER = ("accuracy", "recall", "top_")
"""How the names of metrics begin that are to be high; a function of the user's has an attribute `higher_is_better`."""


@dataclass(frozen=True)
class Built:
    """A run that is ready to train, and what was decided on the way."""

    config: dict[str, Any]
    data: Data
    training: Training
    execution: Execution
    trainer: Trainer
    evaluation: Evaluation
    tracking: Tracking
    flop_per_step: int
    parameters: int
    identity: Identity
    initial_weights: str | None = None
    """The SHA-256 of the weights that `init_from` names."""


def build(config: DictConfig, *, data: Data | None = None, before: Mapping[str, Any] | None = None) -> Built:
    """Return the parts of the run that `config` describes; `data` is its data set, if it is loaded already.

    What `auto` stands for is as in `before`, the summary's `execution` of a run that is resumed.
    Raises `UserError` with one message that says what is wrong and what to type.
    """
    return assemble(check_config(config), data=data, before=before)


def assemble(plain: dict[str, Any], *, data: Data | None = None, before: Mapping[str, Any] | None = None) -> Built:
    """Return the parts of a run whose configuration `check` has returned, as `build` does."""
    trainer, evaluation, tracking = (cls(**plain[name]) for name, cls in SETTINGS.items())
    device, precision = choose(trainer.device, trainer.precision)
    decided = before if before and before.get("device") == device.type else {}
    data = data or dataset(plain)
    data = _moved(data if not trainer.fast else _two_batches(data, trainer), device)
    model = make_model(plain, data.spec, of=data.name)
    initial = weights.start_from(plain["init_from"], model) if plain["init_from"] else None
    model.to(device)
    objective = Objective(model, _part(plain, "loss"), autocast=autocast(device, precision))
    check_walk(model, data)
    check_tokenizer(data, plain["trusted"])
    metrics = _metrics(plain, data)
    optimizer = _optimizer(plain, trainer)
    asked = layout.asked(trainer.memory_format, decided)
    memory_format, flop_per_sample = layout.laid_out(
        model,
        layout.decide(asked, model, optimizer, device, precision),
        lambda: rehearse(objective, data.train, metrics, device=device, targets=_targets(plain)),
        asked=asked,
    )
    batches = _batches(trainer, data, seed=plain["seed"], device=device)
    flop = round(flop_per_sample * batches.size)
    threads = trainer.threads or threads_for(flop, device)
    optimizer.init(objective)
    planned = plan(trainer, batches.per_epoch)
    training = Training(
        objective=objective,
        batches=batches,
        optimizer=optimizer,
        schedule=_part(plain, "schedule"),
        plan=planned,
        seed=plain["seed"],
        device=device,
        validation=data.validation,
        metrics=metrics,
        evaluation_batch_size=batch_size_for(evaluation.batch_size, data.spec),
        patience=trainer.patience,
        average=Average(objective.params, trainer.ema) if trainer.ema else None,
    )
    steps = None if trainer.minutes else planned.steps
    work = compile_policy.Work(len(objective.params), flop, steps, device, program.why_not(training))
    compiled = compile_policy.choose(trainer.compile, work, before=decided)
    if compiled.compile:
        training.make_stepper, training.wrap_totals = program.make_stepper, partial(maybe_graphed, device=device)
    check_schedule(training.schedule, training.plan.steps, target=plain["schedule"]["_target_"])
    _monitor(training, evaluation, data)
    execution = Execution(device, precision, threads, trainer.deterministic, memory_format, *compiled)
    return Built(
        config=plain,
        data=data,
        training=training,
        execution=execution,
        trainer=trainer,
        evaluation=evaluation,
        tracking=tracking,
        flop_per_step=flop,
        parameters=sum(p.numel() for p in model.parameters()),
        identity=identity(plain, data, execution, initial),
        initial_weights=initial,
    )


def identity(plain: dict[str, Any], data: Data, execution: Execution, initial: str | None) -> Identity:
    """Return the identity of the run that a checked configuration describes; `initial` are its first weights' SHA-256.

    Where they come from has no part in it: a run that is trained on has other weights than before.
    """
    return identify(
        plain | {"init_from": initial},
        data.fingerprint,
        device=execution.device.type,
        precision=execution.precision,
        torch=torch.__version__,
    )


def _monitor(training: Training, evaluation: Evaluation, data: Data) -> None:
    chosen = evaluation.monitor or ("val/error" if data.spec.task == "classification" else "val/loss")
    if data.validation is None:
        for name, value in (("evaluation.monitor", evaluation.monitor), ("trainer.patience", training.patience)):
            if value is not None:
                raise ConfigError(f"{name}={value} needs a validation split: give dataset.validation_size.")
    known_bytes = bytes_per_token(data.validation) if data.validation else None
    derived = known_metrics.derive(dict.fromkeys(training.metrics, 0.0), bytes_per_token=known_bytes)
    valid = [f"val/{name}" for name in ("loss", *training.metrics, *derived)]
    if chosen not in valid:
        raise ConfigError(
            f"evaluation.monitor={chosen} is not computed.{did_you_mean(chosen, valid)} There are: {', '.join(valid)}."
        )
    training.monitor = chosen
    training.higher_is_better = _higher_is_better(chosen.removeprefix("val/"), training.metrics)


def _higher_is_better(name: str, metrics: Mapping[str, Metric]) -> bool:
    metric = metrics.get(name)
    declared = getattr(getattr(metric, "func", metric), "higher_is_better", None)
    return name.startswith(HIGHER_IS_BETTER) if declared is None else bool(declared)


def _part(plain: dict[str, Any], name: str) -> Any:
    """Return the function that a group chose, its configured arguments filled in."""
    return instantiate.partial(plain[name], trusted=plain["trusted"])


def dataset(plain: dict[str, Any]) -> Data:
    """Return the data set of a checked configuration; raises `UserError` if its files are missing or altered."""
    data = instantiate.make(plain["dataset"], trusted=plain["trusted"])
    if not isinstance(data, Data):
        raise ConfigError(
            f"{plain['dataset']['_target_']} returned a {type(data).__name__}; a data set is a dlrun.types.Data, "
            f"as dlrun.datasets.from_tensors and from_datasets make it."
        )
    return data


def make_model(plain: dict[str, Any], spec: Spec, *, of: str) -> nn.Module:
    """Return the model on the CPU, its initial weights a function of the seed, with the sizes of the data set `of`."""
    sizes = {name: getattr(spec, name) for name in SIZES}
    for name, size in sizes.items():
        given = plain["model"].get(name)
        if given is not None and size is not None and (tuple(given) if isinstance(given, list) else given) != size:
            raise ConfigError(
                f"model.{name}={given} contradicts the data set {of}, where it is {size}. "
                f"Leave model.{name} out, or choose another data set."
            )
    seed_default(torch.device("cpu"), key(plain["seed"], INITIALISATION))
    model = instantiate.make(plain["model"], trusted=plain["trusted"], **sizes)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{plain['model']['_target_']} made a {type(model).__name__}; a model is a torch.nn.Module.")
    return model


def _optimizer(plain: dict[str, Any], trainer: Trainer) -> Optimizer:
    target = instantiate.resolve(plain["optimizer"]["_target_"], trusted=plain["trusted"])
    if isinstance(target, type) and issubclass(target, torch.optim.Optimizer):
        arguments = {k: v for k, v in plain["optimizer"].items() if k != "_target_"}
        return Descent(adapt(target, **arguments), clip=trainer.clip, accumulate=trainer.accumulate)
    made = instantiate.make(plain["optimizer"], trusted=plain["trusted"])
    step = "update" if hasattr(made, "update") else "step"
    missing = [name for name in ("lr", "init", step, "state_dict", "load_state_dict") if not hasattr(made, name)]
    if missing:
        raise ConfigError(
            f"optimizer: {plain['optimizer']['_target_']} has no `{'`, no `'.join(missing)}`. An optimizer has lr, "
            f"init, update, state_dict and load_state_dict (dlrun.types.Rule), or is a class as those of torch.optim."
        )
    if step == "update":
        return Descent(made, clip=trainer.clip, accumulate=trainer.accumulate)
    for name, neutral in (("clip", None), ("accumulate", 1)):
        if getattr(trainer, name) != neutral:
            raise ConfigError(f"trainer.{name} has no meaning for {type(made).__name__}: it takes no gradient steps.")
    return made  # type: ignore[no-any-return]


def _metrics(plain: dict[str, Any], data: Data) -> dict[str, Metric]:
    own = {name: instantiate.partial(part, trusted=plain["trusted"]) for name, part in plain["metrics"].items()}
    computed = known_metrics.for_task(data.spec.task)
    taken = {"loss", *computed, *known_metrics.derive(dict.fromkeys([*computed, *own], 0.0), bytes_per_token=1.0)}
    for name, metric in own.items():
        if "/" in name:
            raise ConfigError(f"metrics.{name}: a metric's name has no `/`. Call it metrics.{name.replace('/', '_')}.")
        if name in taken and getattr(metric, "func", metric) is not computed.get(name):
            raise ConfigError(
                f"metrics.{name}: `{name}` is computed anyway, and not by {plain['metrics'][name]['_target_']}. Give "
                f"it a name of its own, as metrics.my_{name}; taken are: {', '.join(sorted(taken))}."
            )
    return computed | own


def _targets(plain: dict[str, Any]) -> dict[str, str]:
    """Return the target of each part, by the key that chose it."""
    parts = {name: plain[name] for name in PARTS} | {f"metrics.{name}": part for name, part in plain["metrics"].items()}
    return {name: part["_target_"] for name, part in parts.items()}


def _batches(trainer: Trainer, data: Data, *, seed: int, device: torch.device) -> Batches:
    n = len(data.train)
    size = trainer.batch_size or n
    if size > n:
        raise ConfigError(
            f"trainer.batch_size={size} is larger than the training split of {data.name}, {n} samples. "
            f"Give at most {n}, or trainer.batch_size=null for the whole split."
        )
    return Batches(
        data.train,
        size=size,
        seed=seed,
        device=device,
        augment=data.augment,
        drop_last=trainer.drop_last,
        only=trainer.overfit_batches,
        workers=trainer.workers,
    )


def plan(trainer: Trainer, per_epoch: int, steps: int | None = None) -> Plan:
    """Return the plan of a run; `steps` is the horizon where it is known already (a forecast)."""
    if trainer.fast:
        return Plan(steps=2, per_epoch=per_epoch, log_every=1, evaluate_every=1, checkpoint_every=1)
    if steps is None:
        steps = trainer.steps or max(1, round((trainer.epochs or 1) * per_epoch))
    return Plan(
        steps=steps,
        per_epoch=per_epoch,
        log_every=trainer.log_every or max(1, min(50, steps // 100)),
        evaluate_every=in_steps(trainer.evaluate_every, per_epoch, where="trainer.evaluate_every"),
        **checkpoints(trainer.checkpoint_every, per_epoch, where="trainer.checkpoint_every"),  # type: ignore[arg-type]
    )


def _moved(data: Data, device: torch.device) -> Data:
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, **{name: split and split.to(device) for name, split in splits.items()})


def _two_batches(data: Data, trainer: Trainer) -> Data:
    """Return as much of each split as `trainer.fast` looks at."""
    cut = partial(take_first, n=2 * (trainer.batch_size or 32))
    return replace(
        data,
        train=data.train if isinstance(data.train, LoaderSplit) else cut(data.train),
        validation=data.validation and cut(data.validation),
        test=data.test and cut(data.test),
    )
