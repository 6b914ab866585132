"""The names of an objective's parameters, and of the layers that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn


class Named(Protocol):
    """An objective, as a reader of its parameters or gradients sees it."""

    @property
    def names(self) -> list[str]:
        """The name of each parameter of one run."""

    @property
    def params(self) -> list[Tensor]:
        """The parameters."""

    @property
    def waiting(self) -> frozenset[int]:
        """The places of parameters that do not train yet."""


def parameter_names(parts: Mapping[str, nn.Module], params: Sequence[Tensor]) -> list[str]:
    """The names of parameters. `parts` are modules by the prefix of their names."""
    # of a module that the loss shares with the model, the model's name
    named = [(p, prefix + name) for prefix, part in parts.items() for name, p in part.named_parameters()]
    names = {id(p): name for p, name in reversed(named)}
    return [names[id(p)] for p in params]


def layer_of(name: str) -> str:
    """The layer of a parameter: the module that holds it. One of the model itself is a layer of its own.

    >>> layer_of("layers.0.weight"), layer_of("coefficients")
    ('layers.0', 'coefficients')
    """
    return name.rpartition(".")[0] or name
