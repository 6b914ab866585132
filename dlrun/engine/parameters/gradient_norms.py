"""The norm of each layer's gradient, as points of the curves.

Steps measure one norm a parameter, on the device; at logging steps they are read and added up by layer.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.parameters.names import Named, layer_of
from dlrun.types import Update


class GradientNorms:
    """Reads the gradient norms of steps: of a run numbers, of a stack a list with one for each run."""

    def __init__(self, objective: Named) -> None:
        self._objective = objective
        self._places: dict[Collection[int], tuple[list[str], list[int]]] = {}

    def read(self, update: Update) -> dict[str, Any]:
        """The norms that a step measured, by the name of their curve; waits for the device."""
        point: dict[str, Any] = {}
        if update.grad_norm is not None:
            point["grad_norm"] = update.grad_norm.tolist()
        if update.clipped_norm is not None:
            point["grad_norm_clipped"] = update.clipped_norm.tolist()
        if update.parameter_norms is not None:
            layers, places = self._layers()
            by_layer = _norms if update.parameter_norms.ndim == 1 else _norms_of_stack
            norms = by_layer(update.parameter_norms, places, len(layers))
            point |= zip((f"grad_norm/{layer}" for layer in layers), norms, strict=True)
        return point

    def _layers(self) -> tuple[list[str], list[int]]:
        """The layers that train now, and the place among them of each parameter."""
        waiting = self._objective.waiting
        if waiting not in self._places:
            names = [name for place, name in enumerate(self._names) if place not in waiting]
            layers = [*dict.fromkeys(names)]
            self._places[waiting] = layers, [layers.index(name) for name in names]
        return self._places[waiting]

    @cached_property
    def _names(self) -> list[str]:
        return [layer_of(name) for name in self._objective.names]


def _norms(parameters: Tensor, places: list[int], layers: int) -> list[float]:
    """The norms of layers, of those of their parameters [P]."""
    # in Python: of few parameters it takes a third of the time of the operators below
    squares = [0.0] * layers
    for place, norm in zip(places, parameters.tolist(), strict=True):
        squares[place] += norm * norm
    return [*map(sqrt, squares)]


def _norms_of_stack(parameters: Tensor, places: list[int], layers: int) -> list[list[float]]:
    """The norms [L, R] of layers, of those of their parameters [P, R]."""
    squares = parameters.cpu().double().square()
    # not by a matrix of zeros and ones: 0 times infinity would blame every layer
    sums = squares.new_zeros(layers, squares.shape[1]).index_add(0, torch.tensor(places), squares)
    norms: list[list[float]] = sums.sqrt().tolist()
    return norms
