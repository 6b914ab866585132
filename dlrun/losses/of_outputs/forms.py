"""What PyTorch's losses take and return: which of them are of outputs and targets, and how their mean is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from torch import nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

Targets = Literal["values", "classes", "shares", "zeros and ones", "signs"]


@dataclass(frozen=True)
class Form:
    """What a loss takes.

    `targets` are real values, class numbers, shares that add up to 1, zeros and ones, or the signs -1 and 1. `outputs`
    says what it takes the outputs for, where they are no values of the target. `weighted`: the mean divides by the sum
    of the targets' class weights.
    """

    targets: Targets = "values"
    outputs: Literal["", "logits", "log-probabilities", "probabilities", "scores", "log-rates", "mean and variance"] = (
        ""
    )
    weighted: bool = False


FORMS: dict[str, Form] = {
    "cross_entropy": Form("classes", "logits", weighted=True),
    "nll_loss": Form("classes", "log-probabilities", weighted=True),
    "multi_margin_loss": Form("classes", "scores"),
    "multilabel_margin_loss": Form("classes", "scores"),
    "multilabel_soft_margin_loss": Form("zeros and ones", "logits"),
    "binary_cross_entropy": Form("zeros and ones", "probabilities"),
    "binary_cross_entropy_with_logits": Form("zeros and ones", "logits"),
    "mse_loss": Form(),
    "l1_loss": Form(),
    "smooth_l1_loss": Form(),
    "huber_loss": Form(),
    "poisson_nll_loss": Form(outputs="log-rates"),
    "kl_div": Form("shares", "log-probabilities"),
    "soft_margin_loss": Form("signs", "scores"),
    "hinge_embedding_loss": Form("signs", "scores"),
    "gaussian_nll_loss": Form(outputs="mean and variance"),
}
"""PyTorch's losses of outputs and targets, by their functions."""

CLASSES: dict[type, str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.MultiMarginLoss: "multi_margin_loss",
    nn.MultiLabelMarginLoss: "multilabel_margin_loss",
    nn.MultiLabelSoftMarginLoss: "multilabel_soft_margin_loss",
    nn.BCELoss: "binary_cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    nn.MSELoss: "mse_loss",
    nn.L1Loss: "l1_loss",
    nn.SmoothL1Loss: "smooth_l1_loss",
    nn.HuberLoss: "huber_loss",
    nn.PoissonNLLLoss: "poisson_nll_loss",
    nn.KLDivLoss: "kl_div",
    nn.SoftMarginLoss: "soft_margin_loss",
    nn.HingeEmbeddingLoss: "hinge_embedding_loss",
    nn.GaussianNLLLoss: "gaussian_nll_loss",
}
"""The same as classes."""

TRIPLET = ("TripletMargin", "triplet_margin")
"""How the names of PyTorch's triplet losses begin."""


def name_of(target: Any) -> str | None:
    """The name in `FORMS` of a class or function of PyTorch; None for any other.

    >>> name_of(nn.HuberLoss), name_of(F.mse_loss), name_of(print)
    ('huber_loss', 'mse_loss', None)
    """
    if isinstance(target, type):
        return CLASSES.get(target)
    name = getattr(target, "__name__", "")
    return name if name in FORMS and getattr(F, name, None) is target else None


def is_of_outputs(target: Any) -> bool:
    """Is a loss called with outputs and targets, as PyTorch's are?

    So are other subclasses of its base class, unless their `forward` takes a model.
    """
    if name_of(target):
        return True
    if not (isinstance(target, type) and issubclass(target, _Loss | nn.AdaptiveLogSoftmaxWithLoss)):
        return False
    return "model" not in _inputs(target.forward)


def other_inputs(target: Any) -> str:
    """The inputs of a loss of PyTorch that is of more than outputs and targets, in words; empty for any other."""
    module, name = getattr(target, "__module__", ""), getattr(target, "__name__", "")
    if name_of(target) or module not in ("torch.nn.modules.loss", "torch.nn.functional") or "loss" not in name.lower():
        return ""
    inputs = _inputs(getattr(target, "forward", target))
    advice = "Type loss=triplet, or write" if name.startswith(TRIPLET) else "Write"
    return (
        f"{name} takes {', '.join(inputs)}; a batch has inputs and targets. {advice} a loss of your own, a function "
        "of (model, batch)."
    )


def arguments_of(module: nn.Module, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of `function` that are attributes of a loss."""
    return {name: getattr(module, name) for name in signature(function).parameters if hasattr(module, name)}


def _inputs(function: Callable[..., Any]) -> list[str]:
    known = signature(function).parameters.values()
    return [p.name for p in known if p.name != "self" and p.default is p.empty]
