"""Chains of dense layers and elementwise functions for R stacked runs.

A chain maps [R, B, …] to [R, B, O] by batched products, each run with its own weights. For tiny layers a batched
product is mostly overhead. Then values lie as [F, B, R], with the runs innermost, and a product is a sum of a few
multiples: faster for a few units, many times faster compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dlrun.models.linear import Linear
from dlrun.models.mlp import MLP
from dlrun.models.polynomial import Polynomial
from dlrun.models.tanh_layers import TanhLayers
from dlrun.stacked.weights import Layout

Layer = Callable[[Sequence[Tensor], Tensor], Tensor]
"""(parameters [R, …], values [R, B, …]) → values [R, B, …]; if tiny, with the runs as the last axis."""

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Tanh,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Identity,
)
"""Modules without weights that act on each value by itself."""

TINY = 16
"""Weights of a layer up to which sums of multiples beat a batched product (measured on a 2-core EPYC)."""


@dataclass(frozen=True)
class Chain:
    """The layers of a model, as one function.

    If `innermost`, the runs are the last axis of values and parameters.
    """

    layers: Sequence[Layer]
    innermost: bool

    def __call__(self, layout: Layout, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Outputs [R, B, O] for x [R, B, …]."""
        params = layout.columns(weights) if self.innermost else layout.views(weights)
        for layer in self.layers:
            x = layer(params, x)
        return x


def chain(model: nn.Module, places: Mapping[int, int], powers: Tensor | None = None) -> Chain | None:
    """A model as a chain of layers, or None.

    `places` is the index of each parameter, known by its `id`, in the list that a layer gets. `powers` [R, D + 1] are
    those of polynomials of several degrees.
    """
    parts = _parts(model)
    if parts is None:
        return None
    if _tiny(parts):
        inner = [_inner(part, places) for part in parts if not isinstance(part, nn.Flatten)]
        return Chain([_inward, *inner, _outward], innermost=True)
    return Chain([_layer(part, places, powers) for part in parts], innermost=False)


def _parts(model: nn.Module) -> list[nn.Module] | None:
    """The layers in their order, None if they are unknown."""
    # by exact types: a subclass may compute anything
    kind = type(model)
    # a hook may change the values
    if model._forward_hooks or model._forward_pre_hooks:
        return None
    if kind is nn.Sequential:
        # a module that stands in it twice is a layer twice, but a child once
        found = [_parts(part) for part in cast("nn.Sequential", model)]
        return None if any(part is None for part in found) else [layer for part in found for layer in part or []]
    if kind is MLP:
        return _after_flatten([*model.children()])
    if kind is TanhLayers:
        layers, classifier = model.children()
        return _after_flatten([*(part for layer in layers.children() for part in (layer, nn.Tanh())), classifier])
    if kind is Linear:
        return [nn.Flatten(), model]
    if isinstance(model, nn.Flatten) and [model.start_dim, model.end_dim] != [1, -1]:
        return None
    if kind is nn.Dropout:
        return [] if model.p == 0 else None
    return [model] if kind in (nn.Linear, nn.Flatten, Polynomial, *ELEMENTWISE) else None


def _after_flatten(parts: Sequence[nn.Module]) -> list[nn.Module] | None:
    return _parts(nn.Sequential(nn.Flatten(), *parts))


def _tiny(parts: Sequence[nn.Module]) -> bool:
    """Are all weights in tiny dense layers?"""
    linear = [part for part in parts if any(True for _ in part.parameters())]
    dense = all(type(part) is nn.Linear and part.weight.numel() <= TINY for part in linear)
    # a flattening at the start is done by `_inward`; elsewhere it would mix the axes
    return dense and bool(linear) and all(type(part) is not nn.Flatten for part in parts[1:])


def _layer(part: nn.Module, places: Mapping[int, int], powers: Tensor | None) -> Layer:
    """A layer by batched products."""
    if type(part) is nn.Flatten:
        return lambda params, h: h if h.ndim == 3 else h.flatten(2)
    if type(part) is nn.Linear:
        return _product(places[id(part.weight)], None if part.bias is None else places[id(part.bias)])
    if type(part) is Linear:
        return _with_constant(places[id(part.coefficients)])
    if type(part) is Polynomial:
        return _powers(part.powers if powers is None else powers[:, None], places[id(part.coefficients)])
    return lambda params, h: part(h)


def _product(weight: int, bias: int | None) -> Layer:
    def layer(params: Sequence[Tensor], h: Tensor) -> Tensor:
        # the weight as the first factor: then its gradient has the weight's strides
        w, columns = params[weight], h.reshape(len(h), -1, h.shape[-1]).transpose(1, 2)
        y = torch.bmm(w, columns) if bias is None else torch.baddbmm(params[bias].unsqueeze(2), w, columns)
        return y.transpose(1, 2).reshape(*h.shape[:-1], -1)

    return layer


def _with_constant(place: int) -> Layer:
    # the last row of the coefficients is the constant
    return lambda params, h: torch.baddbmm(params[place][:, -1:], h, params[place][:, :-1])


def _powers(powers: Tensor, place: int) -> Layer:
    def layer(params: Sequence[Tensor], h: Tensor) -> Tensor:
        # in double precision, as the model alone
        features = h.double().reshape(len(h), -1, 1) ** powers
        return torch.bmm(features, params[place]).to(h.dtype)

    return layer


def _inward(params: Sequence[Tensor], h: Tensor) -> Tensor:
    """[R, B, …] → [F, B, R]."""
    return h.flatten(2).permute(2, 1, 0).contiguous()


def _outward(params: Sequence[Tensor], h: Tensor) -> Tensor:
    """[F, B, R] → [R, B, F]."""
    return h.permute(2, 1, 0)


def _inner(part: nn.Module, places: Mapping[int, int]) -> Layer:
    """A layer on values [F, B, R] with parameters […, R]."""
    if type(part) is not nn.Linear:
        return lambda params, h: part(h)
    weight, bias = places[id(part.weight)], None if part.bias is None else places[id(part.bias)]

    def layer(params: Sequence[Tensor], h: Tensor) -> Tensor:
        y = (params[weight].unsqueeze(2) * h).sum(1)  # [O, I, 1, R] and [I, B, R]
        return y if bias is None else y + params[bias].unsqueeze(1)

    return layer
