"""One forward pass for the loss and all metrics: a model's outputs are kept while a batch is evaluated.

Within `cache_forward` the model is itself in every respect; only its methods of `CACHED` are replaced, on the object,
by ones that look up the output of an earlier call first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

CACHED = ("forward", "features", "logits", "log_prob")
"""The methods that losses and metrics ask. Calling the model is calling its `forward`."""


@dataclass
class _Call:
    """A method's call, with its output."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool
    params: list[nn.Parameter]
    versions: list[int]
    output: Any

    def equals(self, other: _Call) -> bool:
        # the same objects, not equal values: comparing tensors would take as long as a small model's pass
        return (
            self.method == other.method
            and self.grad == other.grad
            and self.versions == other.versions
            and self.kwargs.keys() == other.kwargs.keys()
            and len(self.args) == len(other.args)
            and _same(self.args, other.args)
            and _same(self.kwargs.values(), (other.kwargs[name] for name in self.kwargs))
            and _same(self.params, other.params)
        )


class ForwardCache:
    """The outputs of a model, by method and inputs.

    A model in training mode, or whose parameters changed since, computes anew.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._calls: list[_Call] = []

    def prime(self, x: Tensor, output: Tensor) -> None:
        """Set the output for `x`, however it was computed."""
        self._calls.append(self._call("forward", (x,), {}, output))

    def output(self, method: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output of an earlier call, else of `compute`."""
        if self.model.training:  # a call may draw random numbers or change buffers: none replaces another
            return compute(*args, **kwargs)
        call = self._call(method, args, kwargs, None)
        for earlier in self._calls:
            if earlier.equals(call):
                return earlier.output
        call.output = compute(*args, **kwargs)
        self._calls.append(call)
        return call.output

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> _Call:
        # `_version` counts the changes in place of a tensor
        params = [*self.model.parameters()]
        return _Call(method, args, kwargs, torch.is_grad_enabled(), params, [p._version for p in params], output)


class _CachedMethod:
    """A method with the cache before it."""

    def __init__(self, cache: ForwardCache, name: str) -> None:
        self._cache = cache
        self._name = name
        self._method = getattr(cache.model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._cache.output(self._name, self._method, args, kwargs)

    def prime(self, x: Any, output: Any) -> None:
        """Set the output for `x`, which the model has found on its way to another one."""
        self._cache.prime(x, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # a copy of the model computes for itself: it will have other weights
        return deepcopy(self._method, memo)


@contextmanager
def cache_forward(model: nn.Module) -> Iterator[ForwardCache]:
    """Compute each output of `model` once within the context.

    For one batch: the outputs stay in memory.

    >>> model, x = nn.Linear(3, 2).eval(), torch.ones(1, 3)
    >>> with cache_forward(model):
    ...     model(x) is model(x)
    True
    """
    cache, attributes = ForwardCache(model), vars(model)
    # a submodule called `features` is none: submodules are in neither of the two
    names = [name for name in CACHED if name in attributes or callable(getattr(type(model), name, None))]
    before = {name: attributes[name] for name in names if name in attributes}
    # past `__setattr__`, which wrappers of models replace
    attributes.update({name: _CachedMethod(cache, name) for name in names})
    try:
        yield cache
    finally:
        for name in names:
            del attributes[name]
        attributes.update(before)


def _same(some: Collection[object], others: Iterable[object]) -> bool:
    return all(map(is_, some, others))
