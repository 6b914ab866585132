"""Shared by the rules: groups of parameters, fused kernels, saved state, and checks of rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

# torch's fused kernels there take a whole step in one pass over memory
_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps"})


class Group(NamedTuple):
    """The places of parameters for one kernel call."""

    places: list[int]
    weight_decay: float


def group_params(params: Sequence[Tensor], decay: Sequence[bool], weight_decay: float) -> list[Group]:
    """Group parameters by device, type and weight decay."""
    groups: dict[tuple[torch.device, torch.dtype, float], list[int]] = {}
    for i, (p, decays) in enumerate(zip(params, decay, strict=True)):
        groups.setdefault((p.device, p.dtype, weight_decay if decays else 0.0), []).append(i)
    return [Group(places, key[2]) for key, places in groups.items()]


def pick(tensors: list[Tensor], group: Group) -> list[Tensor]:
    """The tensors of a group."""
    # mostly it has all: then there is no list to make
    if len(group.places) == len(tensors):
        return tensors
    return [tensors[i] for i in group.places]


def has_fused(params: Sequence[Tensor]) -> bool:
    """Do torch's fused kernels take these tensors?"""
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in params)


def choose_fused(params: Sequence[Tensor], fused: bool | None) -> bool:
    """Use the fused kernels? Raises `ConfigError` where they are asked for and do not exist."""
    available = has_fused(params)
    if fused and not available:
        kinds = sorted({f"{str(p.dtype).removeprefix('torch.')} on {p.device.type}" for p in params})
        raise ConfigError(
            f"optimizer.fused=true: torch has fused kernels for floating-point numbers on "
            f"{', '.join(sorted(_FUSED_DEVICES))}; these weights are {', '.join(kinds)}. Leave optimizer.fused out."
        )
    return available if fused is None else fused


def real_views(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Complex tensors as pairs of real numbers, and real ones as they are; both share memory with the given ones.

    >>> real_views([torch.tensor([1 + 2j])])
    [tensor([[1., 2.]])]
    """
    return [torch.view_as_real(t) if t.is_complex() else t for t in tensors]


def uses_fused(params: Sequence[Tensor], lr: float | Tensor) -> bool:
    """Does a step at this rate use a fused kernel?"""
    # not a traced one on a CPU, whose rate is a tensor: TorchInductor fuses the whole step
    return not isinstance(lr, Tensor) or params[0].device.type != "cpu"


def restore(name: str, into: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    """Copy the saved tensors into the state `name`.

    It keeps its devices and memory formats. Raises `ConfigError` for another number or other shapes of tensors.
    """
    given, expected = [list(t.shape) for t in saved], [list(t.shape) for t in into]
    if given != expected:
        raise ConfigError(
            f"The saved optimizer state `{name}` has the shapes {given}, this model needs {expected}. "
            "Resume with the model and the optimizer that the checkpoint was written with."
        )
    for target, source in zip(into, saved, strict=True):
        target.copy_(source)


def is_elementwise(rule: object) -> bool:
    """Does a rule say, by its own attribute `elementwise`, that it changes each number of a weight by itself?"""
    # not by that of a base class: a derived one may do something else
    own = vars(rule).get("elementwise", vars(type(rule)).get("elementwise", False))
    return bool(own)


def check_none_frozen(model: nn.Module, name: str) -> None:
    """Raise `ConfigError` for frozen parameters: the optimizer `name` sets all of them in closed form."""
    if frozen := [each for each, p in model.named_parameters() if not p.requires_grad]:
        raise ConfigError(
            f"optimizer={name} sets all parameters of a model at once, and {frozen[0]} is frozen. Type "
            "'finetune.freeze=[]', or an optimizer that takes gradient steps, such as optimizer=adam."
        )


def check_rate(name: str, value: float, *, below: float = float("inf")) -> None:
    """Raise `ConfigError` unless 0 ≤ value < below."""
    if not 0.0 <= value < below:
        bound = f"0 ≤ {name} < {below:g}" if below != float("inf") else f"{name} ≥ 0, and finite"
        raise ConfigError(f"optimizer.{name} is {value}; expected {bound}. Type for example optimizer.{name}=0.1")
