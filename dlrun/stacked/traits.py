"""What runs must have in common to be trained as one program, and which run cannot be at all.

Free to differ are the seed (initial weights, order, augmentation), the learning rate and its schedule, weight decay,
momentum, betas, the bound of clipping, label smoothing, patience, a polynomial's degree, and the samples, if there are
as many.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.engine.batches import Batches, LoaderSplit
from dlrun.engine.evaluation import ContiguousWindows
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.polynomial import Polynomial
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import TorchRule
from dlrun.stacked.scores import plain

_OF_MODULE = frozenset(vars(nn.Module()))
"""What every module has: its parameters, buffers, children and hooks."""


def alone(objective: Objective, batches: Batches, optimizer: Optimizer) -> str | None:
    """Return why a run cannot be trained together with others, in words, or None if it can."""
    return _model_alone(objective.model) or _optimizer_alone(optimizer) or _data_alone(batches)


def _model_alone(model: nn.Module) -> str | None:
    name = type(model).__name__
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            return f"{name} has {type(module).__name__}, whose statistics follow a run's own batches"
        if isinstance(module, _DropoutNd) and module.p > 0:
            return f"{name} has dropout (p={module.p}), whose masks are drawn in a run's own order"
        if isinstance(module, nn.RNNBase):
            return f"{name} has {type(module).__name__}, whose steps are one kernel for one run"
    persistent = set(model.state_dict()) - {n for n, _ in model.named_parameters(remove_duplicate=False)}
    if persistent:
        return f"{name} keeps more than weights in its state ({', '.join(sorted(persistent))})"
    if not all(p.requires_grad for p in model.parameters()):
        return f"{name} has weights that are not trained"
    if len({(p.dtype, p.device) for p in model.parameters()}) > 1:
        return f"{name} has weights of several types"
    return None


def _optimizer_alone(optimizer: Optimizer) -> str | None:
    if type(optimizer) is not Descent:
        return f"{type(optimizer).__name__} takes no gradient steps that runs can share"
    if type(optimizer.rule) not in (SGD, Adam):
        name = "a class of torch.optim" if isinstance(optimizer.rule, TorchRule) else type(optimizer.rule).__name__
        return f"{name} is no rule for many runs at once; `optimizer=sgd` and `optimizer=adamw` are"
    return None


def _data_alone(batches: Batches) -> str | None:
    split = batches.split
    if isinstance(split, LoaderSplit):
        return "the data is streamed by workers"
    return "the text is walked along with a memory" if isinstance(split, ContiguousWindows) else None


def of_objective(objective: Objective) -> dict[str, Hashable]:
    """Return what the objectives of runs must have in common, by the name of the group that decides it."""
    function, arguments = plain(objective.loss)
    if function is cross_entropy:
        arguments.pop("label_smoothing", None)
    return {
        "model": _model(objective),
        "loss": (function, _plain(arguments)),
        "trainer.precision": _autocast(objective),
    }


def _model(objective: Objective) -> Hashable:
    if type(objective.model) is Polynomial:  # one of a lower degree has the first columns alone
        return (Polynomial, tuple(objective.model.coefficients.shape[1:]))
    modules = tuple((name, type(module), _attributes(module)) for name, module in objective.model.named_modules())
    return (modules, tuple((tuple(p.shape), p.dtype) for p in objective.params))


def of_optimizer(optimizer: Descent) -> dict[str, Hashable]:
    """Return what the optimizers of runs must have in common, by the key that decides it."""
    rule = optimizer.rule
    return {
        "optimizer": type(rule),
        "optimizer.decoupled": getattr(rule, "decoupled", None),
        "optimizer.nesterov": getattr(rule, "nesterov", None),
        "trainer.accumulate": optimizer.accumulate,
        "trainer.clip (with it, or without)": optimizer.clip is None,
        "the norm of the gradient, measured": optimizer.measure_norm,
    }


def of_batches(batches: Batches) -> dict[str, Hashable]:
    """Return what the batches of runs must have in common, by the key that decides it."""
    return {
        "trainer.batch_size": batches.size,
        "the number of training samples": len(batches.split),
        "trainer.drop_last": batches.drop_last,
        "trainer.overfit_batches": batches.only,
        "trainer.device": batches.device,
    }


def function_of(function: Any) -> Hashable:
    """Return what tells a function with its filled-in arguments from others.

    >>> function_of(partial(max, default=1)) == function_of(partial(max, default=1))
    True
    """
    if isinstance(function, partial):
        return (function_of(function.func), _plain(function.args), _plain(function.keywords))
    if isinstance(function, FunctionType | BuiltinFunctionType):
        return function
    return (type(function), _plain(getattr(function, "__dict__", id(function))))


def _autocast(objective: Objective) -> str:
    return repr(objective._autocast)


def _attributes(module: nn.Module) -> tuple[Hashable, ...]:
    """Return a module's own settings: all that it has beside weights, children and what every module has."""
    own = {name: value for name, value in vars(module).items() if name not in _OF_MODULE}
    buffers = tuple((name, _plain(buffer)) for name, buffer in module.named_buffers(recurse=False))
    return (_plain(own), buffers)


def _plain(value: Any) -> Hashable:
    """Return a value as something to compare: numbers and text as they are, what is unknown as itself."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _plain(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Tensor):
        return fingerprint(value)
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return repr((type(value), id(value)))
