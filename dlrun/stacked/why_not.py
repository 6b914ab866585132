"""The reasons why runs cannot be stacked, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import LoaderSplit
from dlrun.engine.evaluation import ContiguousWindows
from dlrun.engine.forward.recomputing import recomputing
from dlrun.engine.forward.whole_split import of_splits, of_states, takes
from dlrun.engine.loop import Training
from dlrun.engine.protocols import Optimizer
from dlrun.engine.state import State
from dlrun.losses.auxiliary import has_auxiliary_heads
from dlrun.losses.own import OwnLoss
from dlrun.losses.triplet import triplet
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.models.lora import is_adapter
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import TorchRule
from dlrun.stacked.key import stack_key
from dlrun.stacked.losses import split_partial
from dlrun.stacked.trial import trial
from dlrun.types import Split


def why_not(trainings: Sequence[Training], states: Sequence[State] | None = None) -> str | None:
    """The reason against stacking these runs, or None.

    Of one run, the reason against stacking it with any. The parts of the first are tried on two samples.
    """
    first = trainings[0]
    for training in trainings:
        why = why_never(training)
        if why is not None:
            return why
    key = stack_key(first)
    for training in trainings[1:]:
        difference = key.difference(stack_key(training))
        if difference is not None:
            return f"they differ in {difference}"
    steps = {state.step for state in states or ()}
    if len(steps) > 1:
        return f"they stand at different steps ({', '.join(map(str, sorted(steps)))})"
    # last: it computes
    return trial(first.objective, first.metrics, first.batches.split, first.device)


def why_never(training: Training) -> str | None:
    """The reason against stacking a run with any other."""
    # by the types of its parts: nothing is computed
    return (
        _own(training)
        or _model(training.objective.model)
        or _optimizer(training.optimizer)
        or _split(training.batches.split)
        or _split(training.validation)
    )


def _own(training: Training) -> str | None:
    for module in training.objective.modules[1:]:
        if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            return "its loss has weights or buffers of its own"
    if training.objective.views is not None:
        return "evaluation.views averages the outputs of one model"
    if isinstance(training.objective.loss, OwnLoss):
        return "the model computes its loss itself (loss=own)"
    if isinstance(training.objective.loss, WeightedSum):
        return "the terms of its loss are computed of one model's outputs"
    loss, arguments = split_partial(training.objective.loss)
    if loss is triplet and arguments.get("mining") == "random":
        return "loss.mining=random draws triplets in a run's own order"
    for name, metric in of_splits(training.metrics).items():
        if takes(metric, "train"):
            return f"metrics.{name} compares with the outputs of the training split, which are those of one model"
    for name in of_states(training.metrics):
        return f"metrics.{name} adds up states of its own, those of one model"
    if training.objective.target_scale is not None:
        return "dataset.scale_targets: its metrics are scaled back for one model"
    if getattr(training, "guard", None):
        return "each run goes back by steps of its own (trainer.on_spike)"
    if training.log_parameters:
        return "the parameters of one run are curves (trainer.log_parameters)"
    return training.own.why_not_one_program() if training.own else None


def _model(model: nn.Module) -> str | None:
    name = type(model).__name__
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            return f"{name} has {type(module).__name__}, whose statistics follow a run's own batches"
        if isinstance(module, _DropoutNd) and module.p > 0:
            return f"{name} has dropout (p={module.p}), whose masks are drawn in a run's own order"
        if isinstance(module, nn.RNNBase):
            return f"{name} has {type(module).__name__}, whose steps are one kernel for one run"
    if recomputing(model):
        return f"{name} computes activations again in the backward pass, with the weights of one run"
    if has_auxiliary_heads(model):
        return f"{name} has auxiliary heads, whose share of the loss is computed for one run"
    if any(is_adapter(name) for name, _ in model.named_parameters()):
        return f"{name} has adapters beside frozen weights (finetune.lora)"
    persistent = set(model.state_dict()) - {n for n, _ in model.named_parameters(remove_duplicate=False)}
    if persistent:
        return f"{name} keeps more than weights in its state ({', '.join(sorted(persistent))})"
    if not all(p.requires_grad for p in model.parameters()):
        return f"{name} has weights that are not trained (finetune.freeze, optimizer.groups)"
    if any(p.is_complex() for p in model.parameters()):
        return f"{name} has complex weights, and the stacked rules are those of real ones"
    if sparse := next((m for m in model.modules() if getattr(m, "sparse", None) is True), None):
        return f"{name} has {type(sparse).__name__} with sparse gradients, which cannot be stacked"
    if len({(p.dtype, p.device) for p in model.parameters()}) > 1:
        return f"{name} has weights of several types"
    return None


def _optimizer(optimizer: Optimizer) -> str | None:
    if type(optimizer) is not Descent:
        return f"{type(optimizer).__name__} takes no gradient steps that runs can share"
    if optimizer.memory.size is not None:
        return "trainer.micro_batch cuts the batches of one run; trainer.accumulate those of all"
    if isinstance(optimizer.rule, LayeredRule):
        return "its layers have settings, rates or first steps of their own (optimizer.groups, finetune)"
    if type(optimizer.rule) not in (SGD, Adam):
        name = "a class of torch.optim" if isinstance(optimizer.rule, TorchRule) else type(optimizer.rule).__name__
        return f"{name} is no rule for many runs at once; `optimizer=sgd` and `optimizer=adamw` are"
    return None


def _split(split: Split | None) -> str | None:
    if isinstance(split, TensorSplit) and not split.plain:
        return "its samples are several tensors, or have weights"
    if isinstance(split, LoaderSplit):
        return "the data is streamed by workers"
    if isinstance(split, ContiguousWindows):
        return "the windows of a text follow one another, with a memory between them"
    return None
