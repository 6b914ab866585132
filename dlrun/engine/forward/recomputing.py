"""Modules that compute activations again in the backward pass, instead of keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

RECOMPUTES = "recomputes"
"""The attribute of such a module, true or false: whether it does. False makes it compute as any other."""


def recomputing(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that compute activations again."""
    return [module for module in model.modules() if getattr(module, RECOMPUTES, False)]


@contextmanager
def keeping_all(model: nn.Module) -> Iterator[None]:
    """Have all activations kept within the context."""
    modules = recomputing(model)
    for module in modules:
        setattr(module, RECOMPUTES, False)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, RECOMPUTES, True)
