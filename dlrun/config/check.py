"""The check of a whole configuration, before anything is built.

The schema is not written down a second time. A part's keys and types are those of its target's signature, the
settings' those of their dataclass.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from math import inf
from typing import Any

from omegaconf import DictConfig

from dlrun.config import instantiate, trust
from dlrun.config.hydra_errors import unresolved
from dlrun.config.settings import Cost, Evaluation, FineTune, General, Lora, Sweep, Tracking, Trainer
from dlrun.config.signatures import MISSING, parameters
from dlrun.errors import ConfigError, did_you_mean
from dlrun.storage.files.config_values import resolved_values

SETTINGS = {"trainer": Trainer, "evaluation": Evaluation, "tracking": Tracking}
SIZES = ("input_shape", "outputs", "classes", "vocabulary", "levels")
"""The arguments of a model that come from the data, unless the configuration gives them."""

GROUPS: dict[str, dict[str, Any]] = {
    "dataset": {},
    "model": {"runtime": SIZES},
    "loss": {"positional": 2},  # model, batch
    "optimizer": {"runtime": ("params",)},  # of a torch.optim class
    "schedule": {"positional": 2},  # step, steps
}
"""The groups of parts, and the arguments that the runner supplies."""

ENTRIES = ("output", "target")
"""The keys of any loss and metric that name an entry of a model's outputs and of the targets."""

OF_SPLIT = ("inputs", "train", "num_classes", "num_labels")
"""The arguments of a metric of a whole split that come from an evaluation, and sizes of torchmetrics' classes."""

POSITIVE = (
    *("epochs", "steps", "minutes", "batch_size", "accumulate", "clip", "log_every", "patience"),
    *("threads", "overfit_batches", "classes_per_batch"),
)
"""The keys of `trainer` whose numbers must be finite and above 0."""


def check_config(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values.

    Raises `ConfigError` for the first mistake.
    """
    try:
        resolved = resolved_values(config)
    except Exception as error:  # OmegaConf's own tree of exceptions: its first line says which key
        raise ConfigError(unresolved("The configuration", error)) from None
    # Hydra's own part is checked by `hydra_targets`
    plain: dict[str, Any] = {name: value for name, value in resolved.items() if name != "hydra"}
    _top_level(plain)
    # of a sweep's job too, whose values may come from a sweeper's settings
    trust.check(plain["trusted"], of="The configuration")
    for name, settings in SETTINGS.items():
        instantiate.check_arguments(settings, plain[name], where=name)
    instantiate.check_arguments(Sweep, plain.get("sweep", {}), where="sweep")
    instantiate.check_arguments(Cost, plain.get("cost", {}), where="cost")
    instantiate.check_arguments(FineTune, tuned := plain.get("finetune", {}), where="finetune")
    instantiate.check_arguments(Lora, tuned.get("lora", {}), where="finetune.lora")
    if plain.get("study"):
        instantiate.check_part(plain["study"], where="study", trusted=plain["trusted"])
    plain["loss"] = _without_defaults(plain["loss"], plain["trusted"])
    groups = plain["optimizer"].pop("groups", None)
    for name, supplied in GROUPS.items():
        if name == "optimizer":
            _check_optimizer(plain[name], plain, where=name)
        else:
            part = _without_entries(plain[name], name, plain["trusted"]) if name == "loss" else plain[name]
            instantiate.check_part(part, where=name, trusted=plain["trusted"], **supplied)
    if groups:
        _check_groups(groups, plain)
        plain["optimizer"]["groups"] = groups
    for name, metric in plain["metrics"].items():
        if metric is None:  # a metric of the task is taken away
            continue
        where = f"metrics.{name}"
        part = _without_entries(_without_of(metric, plain["trusted"]), where, plain["trusted"])
        instantiate.check_part(part, where=where, trusted=plain["trusted"], positional=2, runtime=OF_SPLIT)
    for name, observer in plain.get("observers", {}).items():
        if observer is not None:
            instantiate.check_part(observer, where=f"observers.{name}", trusted=plain["trusted"])
    _rules(Trainer(**plain["trainer"]), Evaluation(**plain["evaluation"]))
    _check_prices(plain.get("cost", {}))
    return plain


def _without_defaults(given: dict[str, Any], trusted: list[str]) -> dict[str, Any]:
    """Drop keys of the default choice, `loss=cross_entropy`, that have its values and that the loss does not take.

    Raises `ConfigError` for one of PyTorch that takes more than outputs and targets.
    """
    path = str(given.get("_target_"))
    if path == MISSING:
        return given
    target = instantiate.resolve(path, trusted=trusted)
    if path.startswith("torch."):
        from dlrun.losses.of_outputs.forms import other_inputs  # torch is loaded by now

        if refused := other_inputs(target):
            raise ConfigError(f"`loss._target_={path}`: {refused}")
    known = parameters(target)
    unused = {"label_smoothing": 0.0, "class_weights": None}
    return {k: v for k, v in given.items() if known is None or k in known or k not in unused or v != unused[k]}


def split_entries(target: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A loss's or metric's configuration, and its keys `output` and `target`, which name entries of a nest.

    A function that has such an argument itself keeps it.

    >>> def loss(model, batch, output=None): ...
    >>> split_entries(loss, {"output": "a", "target": "b"})
    ({'output': 'a'}, {'target': 'b'})
    """
    known = parameters(target) or {}
    names = {key: given[key] for key in ENTRIES if key in given and key not in known}
    return {key: value for key, value in given.items() if key not in names}, names


def _without_entries(given: dict[str, Any], where: str, trusted: list[str]) -> dict[str, Any]:
    """A loss or metric without the names of entries of outputs and targets.

    Raises `ConfigError` for names that are none.
    """
    path = given.get("_target_", MISSING) if isinstance(given, dict) else MISSING
    if not isinstance(path, str) or path == MISSING:
        return given
    rest, names = split_entries(instantiate.resolve(path, trusted=trusted), given)
    for key, name in names.items():
        if not isinstance(name, str | int | None):
            raise ConfigError(f"`{where}.{key}={name}`: expected the name of an entry, or its place in a tuple.")
    # a sum of losses has some of its own
    if isinstance(terms := rest.get("terms"), dict):
        rest["terms"] = {key: _without_entries(term, f"{where}.terms.{key}", trusted) for key, term in terms.items()}
    return rest


def _without_of(given: dict[str, Any], trusted: list[str]) -> dict[str, Any]:
    """A metric without `of`, which says what one from elsewhere takes of the predictions."""
    path = given.get("_target_", MISSING) if isinstance(given, dict) else MISSING
    if not isinstance(path, str) or path == MISSING:
        return given
    if not instantiate.takes_predictions(instantiate.resolve(path, trusted=trusted)):
        return given
    return {key: value for key, value in given.items() if key != "of"}


OF_GROUP = {"lr": float, "lr_factor": float, "freeze": bool}
"""What a group of weights has beside the arguments of the optimizer."""


def _check_groups(groups: Any, plain: dict[str, Any]) -> None:
    """Check the settings of each group as those of the optimizer are checked."""
    example = "'optimizer.groups={*.bias:{weight_decay:0},head:{lr:0.1}}'"
    if not isinstance(groups, dict):
        raise ConfigError(f"`optimizer.groups={groups}`: expected settings by patterns of names. Type {example}")
    for pattern, settings in groups.items():
        where = f"optimizer.groups.{pattern}"
        if not isinstance(settings, dict) or not settings:
            raise ConfigError(f"`{where}={settings}`: expected settings of these weights. Type for example {example}")
        if {"lr", "lr_factor"} <= settings.keys():
            raise ConfigError(f"`{where}` has lr and lr_factor: a rate, or a factor of optimizer.lr. Give one of them.")
        for name, kind in OF_GROUP.items():
            value = settings.get(name, kind())
            if not instantiate.matches(value, kind) or (kind is float and not 0 <= value < inf):
                expected = "true or false" if kind is bool else "a number of at least 0"
                raise ConfigError(f"`{where}.{name}={value}`: expected {expected}.")
        own = {name: value for name, value in settings.items() if name not in OF_GROUP}
        if "_target_" in own:
            raise ConfigError(f"`{where}._target_`: all weights have one optimizer. Leave it out.")
        _check_optimizer({**plain["optimizer"], **own}, plain, where=where)


def _check_optimizer(settings: dict[str, Any], plain: dict[str, Any], *, where: str) -> None:
    """Check an optimizer's arguments; those of torch have `decay_all` too, which they do not know."""

    def check(given: dict[str, Any]) -> Any:
        return instantiate.check_part(given, where=where, trusted=plain["trusted"], **GROUPS["optimizer"])

    target = check({name: value for name, value in settings.items() if name != "decay_all"})
    bases = {f"{base.__module__}.{base.__name__}" for base in getattr(target, "__mro__", ())}
    if "torch.optim.optimizer.Optimizer" not in bases or not isinstance(settings.get("decay_all", True), bool):
        check(settings)


def most_threads() -> int:
    """The largest `trainer.threads`; far too many threads crash."""
    # well above the number of cores: the run of a large machine can still be looked at on a small one
    return max(256, 4 * (os.cpu_count() or 1))


def _top_level(plain: dict[str, Any]) -> None:
    general = [field.name for field in fields(General)]
    valid = [*GROUPS, *SETTINGS, *general, "cost", "finetune", "sweep"]
    for name in plain:
        if name in ("metric", "observer"):
            raise ConfigError(
                f"There is no key `{name}`: a file in conf/{name} begins with the line `# @package {name}s.NAME`, with "
                f"the {name}'s name in place of NAME. Its keys are `{name}s.NAME.KEY`."
            )
        if name not in valid:
            raise ConfigError(
                f"There is no key `{name}`.{did_you_mean(name, valid)}\n"
                # that of a run's folder, which nobody types
                f"The keys are: {', '.join(key for key in valid if key != 'started')}."
            )
    # runs of before 0.2 lack some
    for name in (*GROUPS, *SETTINGS, *(name for name in ("cost", "finetune", "sweep") if name in plain)):
        if not isinstance(plain.get(name), dict):
            raise ConfigError(f"Nothing is chosen for `{name}`. `dlrun list {name}` shows the choices.")
    instantiate.check_arguments(General, {name: plain[name] for name in general if name in plain}, where="")
    if plain["seed"] < 0:
        raise ConfigError(f"`seed={plain['seed']}` must not be negative. Type for example `seed=1`.")


def _check_prices(prices: dict[str, Any]) -> None:
    for key, value in prices.items():
        if isinstance(value, int | float) and not 0 <= value < inf:
            raise ConfigError(f"`cost.{key}={value}` must be a number of at least 0. Type for example `cost.{key}=1`.")


def _rules(trainer: Trainer, evaluation: Evaluation) -> None:
    if trainer.minutes is None and trainer.steps is None and trainer.epochs is None:
        raise ConfigError(
            "The length of training is missing. Give `trainer.epochs`, `trainer.steps` or `trainer.minutes`."
        )
    positive = {f"trainer.{name}": getattr(trainer, name) for name in POSITIVE}
    positive |= {"trainer.micro_batch": None if trainer.micro_batch == "auto" else trainer.micro_batch}
    positive |= {f"evaluation.{name}": getattr(evaluation, name) for name in ("batch_size", "train_samples")}
    for key, value in positive.items():
        if value is not None and not 0 < value < inf:
            expected = "greater than 0" if value <= 0 else "a finite number"
            raise ConfigError(f"`{key}={value}` must be {expected}. Type for example `{key}=1`.")
    if trainer.threads is not None and trainer.threads > most_threads():
        raise ConfigError(
            f"`trainer.threads={trainer.threads}` must be at most {most_threads()}; this machine has {os.cpu_count()} "
            f"cores. Type `trainer.threads={os.cpu_count()}`."
        )
    if trainer.workers < 0:
        raise ConfigError(f"`trainer.workers={trainer.workers}` must be 0 (none) or more. Type `trainer.workers=2`.")
    if trainer.ema is not None and not 0 < trainer.ema < 1:
        raise ConfigError(
            f"`trainer.ema={trainer.ema}` must lie between 0 and 1. Type for example `trainer.ema=0.999`."
        )
    # selecting by the test split would make its numbers too good
    if evaluation.monitor is not None and not evaluation.monitor.startswith("val/"):
        raise ConfigError(
            f"`evaluation.monitor={evaluation.monitor}` is no validation metric. Weights are chosen by one, such as "
            f"`val/loss` or `val/error`; the test split stays sealed until they are."
        )
