"""Weights and buffers of a part that is no model: a loss or metric that is a module, or holds some."""

from __future__ import annotations

from functools import partial
from types import MemberDescriptorType, MethodType
from typing import Any

from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.losses.entries import OfEntries


def module_of(part: Any) -> nn.Module | None:
    """A part as a module: itself, or one of the modules and parameters in its attributes; None if it has none.

    >>> module_of(partial(print, nn.Linear(2, 1))), module_of(print)
    (Module(
      (0): Linear(in_features=2, out_features=1, bias=True)
    ), None)
    """
    if isinstance(part, OfEntries):
        return module_of(part.part)
    if isinstance(part, nn.Module):
        return part
    holder = nn.Module()
    for name, value in attributes_of(part).items():
        if isinstance(value, nn.Module):
            holder.add_module(name, value)
        elif isinstance(value, nn.Parameter):
            holder.register_parameter(name, value)
    return holder if any(True for _ in holder.children()) or any(True for _ in holder.parameters()) else None


def attributes_of(part: Any) -> dict[str, Any]:
    """A part's attributes, of a function with arguments those."""
    if isinstance(part, partial):
        return {"function": part.func} | {str(i): v for i, v in enumerate(part.args)} | part.keywords
    if isinstance(part, MethodType):
        return {"self": part.__self__}
    return {} if isinstance(part, type) else variables(part)


def variables(owner: Any) -> dict[str, Any]:
    """The attributes of an object itself, those of `__slots__` too.

    >>> class Ramp:
    ...     __slots__ = ("calls",)
    >>> ramp = Ramp(); ramp.calls = 3
    >>> variables(ramp)
    {'calls': 3}
    """
    found = dict(getattr(owner, "__dict__", {}))
    if not isinstance(owner, type):
        for kind in type(owner).__mro__:
            # by the descriptors: they have the full names of private ones
            slots = [key for key, each in vars(kind).items() if isinstance(each, MemberDescriptorType)]
            found |= {key: getattr(owner, key) for key in slots if "__slots__" in vars(kind) and hasattr(owner, key)}
    return found


def check_trainable(name: str, part: Any) -> None:
    """Raise `ConfigError` for a tensor that requires a gradient and is no parameter: nothing would train it."""
    owners = part.named_modules() if isinstance(part, nn.Module) else [("", part)]
    for prefix, owner in owners:
        for key, value in attributes_of(owner).items():
            if isinstance(value, Tensor) and value.is_leaf and value.requires_grad and type(value) is Tensor:
                where = ".".join(filter(None, (name, prefix, key)))
                raise ConfigError(
                    f"{where} is a tensor that requires a gradient, and nothing trains it: make it a "
                    f"torch.nn.Parameter, or leave out requires_grad."
                )
