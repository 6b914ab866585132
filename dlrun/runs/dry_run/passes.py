"""A run's first steps, tried and undone: real batches, the last of an epoch too, and the optimizer's own step.

Parts that do not fit (a model and its inputs, a loss and its targets, a batch too small for a batch norm, gradients
that the optimizer refuses, a metric that returns no sum and count) fail here, with one message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.engine.batches import LoaderSplit
from dlrun.engine.evaluation import evaluating
from dlrun.engine.forward.cache import cache_forward
from dlrun.engine.forward.checkpointing import requiring_calls
from dlrun.engine.forward.states import SplitFunction, is_state_metric
from dlrun.engine.forward.totals import loss_total
from dlrun.engine.forward.views import averaging, requiring_call
from dlrun.engine.forward.whole_split import compute
from dlrun.engine.loop import TrainingBatches
from dlrun.engine.objective import Objective
from dlrun.engine.own.state import OwnState
from dlrun.engine.protocols import Optimizer
from dlrun.engine.reading.streams import StreamBatches
from dlrun.errors import ConfigError
from dlrun.execution.flops import count_flops
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.outputs import describe
from dlrun.losses.weighted import mean_and_weight
from dlrun.metrics import is_of_split
from dlrun.optimizers.counting import Counting
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.least_squares import LeastSquares
from dlrun.randomness import STEP, key, preserve_generators, seed_default
from dlrun.runs.dry_run.averages import SAMPLES, check_averages
from dlrun.runs.dry_run.memory import check_parts, first_step
from dlrun.runs.dry_run.messages import explain
from dlrun.runs.dry_run.parts import init_optimizer
from dlrun.terminal.format import counted
from dlrun.types import Batch, Metric, Outputs, Spec, Split, SplitMetric

FEW = 2
"""Samples of a first pass."""
LARGE = 1 << 28
"""Bytes of weights of which the copy lies in host memory: on a GPU a run may have no room for a second one."""


@dataclass(frozen=True)
class Trial:
    """The parts of a run, to be tried together.

    `plan_steps` are the steps of its plan, None if they are not known. `targets` are the parts' `_target_`s, for the
    messages.
    """

    objective: Objective
    optimizer: Optimizer
    batches: TrainingBatches
    metrics: Mapping[str, Metric]
    validation: Split | None
    spec: Spec
    plan_steps: int | None
    targets: Mapping[str, str]
    own: OwnState = field(default_factory=lambda: OwnState({}))

    @property
    def sizes(self) -> list[int]:
        """Samples of a batch, and of the last of an epoch if it is smaller."""
        batches, n = self.batches, samples_of(self.batches)
        size = min(batches.size, n)
        last = n % size
        reached = not batches.drop_last and batches.per_epoch * size >= n
        if self.plan_steps is not None:
            reached = reached and self.plan_steps >= batches.per_epoch
        return [size, last] if last and reached else [size]


def dry_run(trial: Trial, *, steps: bool = True, averages: bool = True) -> float:
    """Take a first pass over a few samples, then the first steps; returns the FLOP of a sample.

    `steps`: take real steps; `averages`: check that no average depends on the batch size. All is left as it was:
    weights, buffers, the optimizer and the generators. Raises `UserError` for parts that do not fit together.
    """
    objective, device = trial.objective, trial.batches.device
    few = _samples(trial.batches.split, FEW, device)
    with preserve_generators(), _undo(trial, steps=steps):
        with trial.own.noting_draws():
            seed_default(device, key(trial.batches.seed, STEP, 0))
            explaining = explain(few, trial.targets, "dataset", "model", "loss", model=objective.model)
            with explaining, requiring_calls(objective.model):
                _differentiate(objective, few)
            check_parts(trial.optimizer, trial.objective, few, size=trial.batches.size, loss=trial.targets["loss"])
            _check_metrics(trial, few)
            _check_classes(trial, few)
            flop = count_flops(objective, few) / few.size
            if steps:
                _take_steps(trial)
        if averages:
            _check_averages(trial)
    return flop


def _samples(split: Split, number: int, device: torch.device) -> Batch:
    """Evenly spaced samples."""
    index = torch.linspace(0, len(split) - 1, min(number, len(split))).round().long()
    return split.gather(index.to(device)).to(device)


@contextmanager
def _undo(trial: Trial, *, steps: bool) -> Iterator[None]:
    """Put weights, buffers and the optimizer back."""
    modules = [each for module in trial.objective.modules for each in module.modules()]
    params = trial.objective.params if steps else []
    # a module may make a buffer or replace one, so the tables are kept beside the values
    tables = [dict(module._buffers) for module in modules]
    values = [b.clone() for table in tables for b in table.values() if b is not None]
    host = sum(p.numel() * p.element_size() for p in params) > LARGE
    weights = [p.detach().to("cpu", copy=True) if host else p.detach().clone() for p in params]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, table in zip(modules, tables, strict=True):
                module._buffers.clear()
                module._buffers.update(table)
            held = [b for table in tables for b in table.values() if b is not None]
            for tensor, value in zip([*held, *params], [*values, *weights], strict=True):
                tensor.copy_(value)
        if steps:
            trial.optimizer.init(trial.objective)  # its state is made anew, not copied: it may be twice the weights


def _check_metrics(trial: Trial, few: Batch) -> None:
    model, objective = trial.objective.model, trial.objective
    # under the cache, as in an evaluation: what fails there fails here
    views = averaging(model, objective.views)
    with evaluating(objective), objective.precision(), views, cache_forward(model):
        with explain(few, trial.targets, "dataset", "model", "loss"), requiring_call(model, objective.views):
            loss_total(objective.loss, model, few)
        for name, metric in trial.metrics.items():
            with explain(few, trial.targets, "dataset", "model", f"metrics.{name}"):
                if is_state_metric(metric):
                    metric.rehearse(Outputs(model(few.x), few.y), trial.spec.classes, trial.spec.class_names)
                elif is_of_split(metric):
                    found = Outputs(model(few.x), few.y)
                    if isinstance(metric, SplitFunction):
                        found = metric.predictions.every_class(found, trial.spec.classes)
                    compute(cast("SplitMetric", metric), found, inputs=few.x, train=found)
                else:
                    _check_metric(metric(model, few))


def _check_classes(trial: Trial, few: Batch) -> None:
    """Raise `ConfigError` for other numbers of logits and classes: the few samples need not have the last class.

    A language model may have more logits than tokens: vocabularies are rounded up for speed.
    """
    objective, classes = trial.objective, trial.spec.outputs
    if getattr(objective.loss, "func", objective.loss) is not cross_entropy or few.y.is_floating_point():
        return
    if trial.spec.task not in ("classification", "language"):
        return
    with evaluating(objective), objective.precision():
        outputs = objective.model(few.x).shape[-1]
    if outputs < classes or (outputs > classes and trial.spec.task == "classification"):
        raise ConfigError(
            f"model={trial.targets['model']} returns {counted(outputs, 'value')} for the {classes} classes of the "
            f"data set. {_advice(str(trial.targets['model']), classes)}"
        )


def _advice(target: str, classes: int) -> str:
    if target.startswith(("torchvision.", "timm.")):
        return f"Type model.num_classes={classes}"
    return "Leave model.outputs to the data set, or give the model as many outputs as there are classes."


def _take_steps(trial: Trial) -> None:
    optimizer, batches = trial.optimizer, trial.batches
    # a model that counts keeps what it has counted, and what `init` checks is all that there is to check
    if isinstance(optimizer, Counting):
        return
    init_optimizer(optimizer, trial.objective, trial.targets["optimizer"])
    trial.objective.train()
    # these take a whole training in a step
    sizes = [FEW] if isinstance(optimizer, LBFGS | LeastSquares) else trial.sizes
    for position, size in enumerate(sizes):
        batch = _batch(batches, size, trial.targets)
        doing = f"a first step over {counted(batch.size, 'sample')}"
        advice = ""
        if position:
            doing = f"a step over the last batch of an epoch, of {counted(size, 'sample')},"
            advice = _other_sizes(samples_of(batches), batches.size)
        with explain(batch, trial.targets, "dataset", "model", "loss", "optimizer", doing=doing, advice=advice):
            first_step(optimizer, trial.objective, batch)


def _batch(batches: TrainingBatches, size: int, targets: Mapping[str, str]) -> Batch:
    """A batch of this size, as training draws it."""
    n, device = len(batches.split), batches.device
    # a file each: a few samples, repeated, have the shapes of all
    read = min(FEW, n) if isinstance(batches.split, LoaderSplit) else min(size, n)
    batch = batches.split.gather(torch.arange(read, device=device)).to(device)
    if read < size:
        batch = batch.rows(torch.arange(size, device=device) % read)
    if batches.augment is None or batches.only:
        return batch
    draw = torch.Generator(device)
    with explain(batch, targets, "dataset", doing="the augmentation of a first batch"):
        varied = batches.vary(batch, draw, step=0, epoch=0, index=torch.arange(batch.size))
        if varied.size != batch.size:
            raise TypeError(f"it returned {describe(varied.x)} for {counted(batch.size, 'sample')}")
    return varied


def samples_of(batches: TrainingBatches) -> int:
    """The samples of an epoch; of a stream that does not say it, a whole number of batches."""
    if isinstance(batches, StreamBatches):
        return batches.split.samples or batches.size
    return len(batches.split)


def _other_sizes(samples: int, size: int) -> str:
    """The words to type against a last batch that is too small.

    >>> _other_sizes(65, 64)
    'Type trainer.drop_last=true to leave it out, or trainer.batch_size=63, whose last batch has 2 samples.'
    """
    fitting = (s for s in range(size - 1, 1, -1) if samples % s != 1)
    other = next(fitting, None)
    if other is None:
        return "Type trainer.drop_last=true to leave it out."
    last = samples % other or other
    return (
        f"Type trainer.drop_last=true to leave it out, or trainer.batch_size={other}, "
        f"whose last batch has {counted(last, 'sample')}."
    )


def _check_averages(trial: Trial) -> None:
    split = trial.validation or trial.batches.split
    batch = _samples(split, 3 if trial.spec.task == "language" else SAMPLES, trial.batches.device)
    if trial.spec.task == "classification" and trial.spec.classes and batch.y.ndim == 1:
        # all classes in turn, from the last: weights of classes show whatever samples these are
        turn = trial.spec.classes - 1 - torch.arange(len(batch.y), device=batch.y.device) % trial.spec.classes
        batch = Batch(batch.x, turn.to(batch.y.dtype))
    with explain(batch, trial.targets, "dataset", "model", "loss", *(f"metrics.{name}" for name in trial.metrics)):
        check_averages(trial.objective, trial.metrics, batch, trial.targets)


def _differentiate(objective: Objective, batch: Batch) -> None:
    with objective.precision():
        values: Any = objective.loss(objective.model, batch)
    for each in values if isinstance(values, tuple) else (values,):
        if not isinstance(each, Tensor) or not each.is_floating_point():
            raise TypeError(
                f"the loss is {describe(values)}; expected a float tensor: one value a sample, or their mean; or a "
                "pair: the values and their weights"
            )
        if each.ndim and len(each) != batch.size:
            raise TypeError(
                f"the loss is {describe(values)} for {counted(batch.size, 'sample')}; expected one value a sample"
            )
    if isinstance(values, tuple) and (len(values) != 2 or values[0].shape != values[1].shape):
        raise TypeError(f"the loss is {describe(values)}; a pair has a value and a weight for each sample")
    # a model without parameters has no gradient to try
    if not objective.params:
        return
    if not mean_and_weight(values)[0].requires_grad:
        raise TypeError("the loss does not depend on the model's parameters (was it detached, or made a number?)")
    # unlike `backward`, leaves no `.grad` behind
    torch.autograd.grad(objective(batch), objective.params, allow_unused=True)


def _check_metric(found: Any) -> None:
    fits = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor) and found[0].numel() == 1
    if not fits or found[0].is_complex():
        raise TypeError(f"it returned {describe(found)}; expected a sum, as a tensor, and how many it was summed over")
