"""From a checked configuration to its parts: data set, model, loss, metrics, optimizer, schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from dlrun.config import instantiate
from dlrun.config.check import SIZES
from dlrun.config.settings import Evaluation, FineTune, Trainer
from dlrun.datasets.tensors.made_by_hand import check_made_by_hand
from dlrun.datasets.tensors.spec import scale_of
from dlrun.datasets.tensors.subset import take_first
from dlrun.engine.batches import LoaderSplit
from dlrun.engine.forward import checkpointing
from dlrun.engine.forward.views import make_views
from dlrun.engine.objective import Objective
from dlrun.engine.own.modules import check_trainable, module_of
from dlrun.engine.own.state import OwnState
from dlrun.engine.protocols import Optimizer
from dlrun.engine.steppers import Thaw
from dlrun.errors import ConfigError, did_you_mean
from dlrun.execution.device import autocast, choose
from dlrun.losses.own import OwnLoss, answer_alone
from dlrun.nests.shapes import is_shape
from dlrun.randomness import INITIALISATION, key, seed_all, seed_library
from dlrun.runs.dry_run.parts import check_tokenizer, check_walk
from dlrun.runs.measures.class_axis import settle_class_axis
from dlrun.runs.measures.loss import check_loss, make_loss
from dlrun.runs.measures.metrics import make_metrics
from dlrun.runs.measures.task import check_takes, for_loss
from dlrun.runs.weights import loading
from dlrun.runs.weights.initial import make_of_data
from dlrun.runs.weights.optimizer import make_optimizer
from dlrun.runs.weights.training import freeze
from dlrun.types import Data, Metric, Schedule, Spec, Task

AS_TORCH = 67280421310721
"""The seed with which torch's generator began before it drew one: earlier runs have their data by it."""


@dataclass(frozen=True)
class Parts:
    """The objects of a configuration's groups, on the run's device."""

    data: Data
    objective: Objective
    metrics: dict[str, Metric]
    optimizer: Optimizer
    schedule: Schedule
    device: torch.device
    precision: str
    own: OwnState
    """The state of the parts that is in no model."""
    initial_weights: str | None
    """The SHA-256 of the weights that `init_from` names."""
    thaw: Thaw | None = None
    """When frozen weights begin to train."""
    left_out: str = ""
    """Why metrics of the task are not computed."""


def make_parts(plain: dict[str, Any], trainer: Trainer, data: Data) -> Parts:
    """Make the parts of a run on `data`.

    Raises `UserError` for a part that cannot be made.
    """
    device, precision = choose(trainer.device, trainer.precision)
    data = whole = for_loss(data, plain)
    data = _move(_two_batches(data, trainer) if trainer.fast else data, device)
    model = make_model(plain, data.spec, of=data.name)
    seed_all(torch.device("cpu"), key(plain["seed"], INITIALISATION, 2))
    # weights of classes are those of all samples, also under `trainer.fast`
    loss = make_loss(plain, whole, device)
    schedule = instantiate.partial(plain["schedule"], trusted=plain["trusted"])
    own = module_of(loss)
    make_of_data(plain, model, loss, data, device)
    skip = [str(pattern) for pattern in plain.get("init_from_skip", [])]
    initial = loading.start_from(plain["init_from"], model, skip=skip) if plain["init_from"] else None
    tuned, groups = FineTune(**plain.get("finetune", {})), plain["optimizer"].get("groups")
    trained = freeze(model, tuned, skip=skip, seed=plain["seed"], groups=groups, loss=own)
    checkpointing.apply(model, trainer.activation_checkpointing)
    model.to(device)  # after the weights are drawn: they are the same on every device
    check_walk(model, data)
    check_tokenizer(data, plain["trusted"])
    if own is not None:
        own.to(device)
    views = make_views(Evaluation(**plain["evaluation"]).views, data.spec.input_shape)
    objective = Objective(model, loss, autocast=autocast(device, precision), views=views)
    objective.target_scale = scale_of(data.spec)
    settle_class_axis(objective, data, device)
    check_loss(objective, data, device)
    metrics, left_out = make_metrics(plain, data, objective, device=device)
    others = {"loss": loss, **{f"metrics.{name}": metric for name, metric in metrics.items()}}
    for name, part in {"model": model, **others}.items():
        check_trainable(name, part)
        if name not in ("model", "loss") and (module := module_of(part)) is not None:
            # a metric trains nothing: its dropout and batch norms are those of an evaluation
            module.to(device).eval()
    return Parts(
        data=data,
        objective=objective,
        metrics=metrics,
        optimizer=make_optimizer(plain, trainer, trained, objective),
        schedule=schedule,
        device=device,
        precision=precision,
        own=OwnState({"model": model, **others, "schedule": schedule, "augment": data.augment}, plain["trusted"]),
        initial_weights=initial,
        thaw=trained.thaw(objective),
        left_out=left_out,
    )


def make_dataset(plain: dict[str, Any]) -> Data:
    """Load the data set of a checked configuration.

    Raises `UserError` if its files are missing or altered.
    """
    # none of them begins the same in each process, and a data set of the user's own may seed nothing
    torch.default_generator.manual_seed(AS_TORCH)
    for library in ("random", "numpy"):
        seed_library(library, 0)
    data = instantiate.make(plain["dataset"], trusted=plain["trusted"])
    if not isinstance(data, Data):
        raise ConfigError(
            f"{plain['dataset']['_target_']} returned a {type(data).__name__}; a data set is a dlrun.types.Data, "
            f"as dlrun.datasets.from_tensors and from_datasets make it."
        )
    # `from_nested` has looked at nests, and of targets of a task `other` nothing is known
    if is_shape(shape := data.spec.input_shape) and None not in shape and data.spec.task not in ("dense", "other"):
        check_made_by_hand(data)
    if (task := data.spec.task) not in (tasks := get_args(Task)):
        raise ConfigError(
            f"The data set `{data.name}` is for the task `{task}`.{did_you_mean(task, tasks)} "
            f"The tasks are: {', '.join(tasks)}."
        )
    return data


def make_model(plain: dict[str, Any], spec: Spec, *, of: str) -> nn.Module:
    """Make the model on the CPU, its weights drawn by the seed.

    It gets the sizes of `spec`; `of` is the data set's name, for messages. Raises `ConfigError` for a size that
    contradicts them.
    """
    sizes = {name: getattr(spec, name) for name in SIZES}
    if not sizes["outputs"]:  # a data set of a task `other` need not know them
        del sizes["outputs"]
    check_takes(plain["model"]["_target_"], spec, of=of)
    for name, size in sizes.items():
        given = plain["model"].get(name)
        if given is not None and size is not None and (tuple(given) if isinstance(given, list) else given) != size:
            raise ConfigError(
                f"model.{name}={given} contradicts the data set {of}, where it is {size}. "
                f"Leave model.{name} out, or choose another data set."
            )
    seed_all(torch.device("cpu"), key(plain["seed"], INITIALISATION))
    model = instantiate.make(plain["model"], trusted=plain["trusted"], **sizes)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{plain['model']['_target_']} made a {type(model).__name__}; a model is a torch.nn.Module.")
    if plain.get("loss", {}).get("_target_") == f"{OwnLoss.__module__}.{OwnLoss.__qualname__}":
        answer_alone(model, plain["loss"].get("outputs", "logits"))
    return model


def _move(data: Data, device: torch.device) -> Data:
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, **{name: split and split.to(device) for name, split in splits.items()})


def _two_batches(data: Data, trainer: Trainer) -> Data:
    """The first samples of each split, for `trainer.fast`."""
    cut = partial(take_first, n=2 * (trainer.batch_size or 32))
    return replace(
        data,
        # it makes its own batches, and two steps take two of them anyway
        train=data.train if isinstance(data.train, LoaderSplit) else cut(data.train),
        validation=data.validation and cut(data.validation),
        test=data.test and cut(data.test),
    )
