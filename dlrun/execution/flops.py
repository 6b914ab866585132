"""The floating-point operations of a step: of its matrix products and convolutions.

A product of an [M, K] and a [K, N] matrix is 2·M·K·N operations. Its backward pass is one more
product of that size for each factor that needs a gradient. Elementwise operations are not counted, as is
the custom (Kaplan et al. 2020, arXiv:2001.08361, appendix B).

The products are seen as PyTorch's functions are called (`torch.overrides`), which costs nothing to
import. `torch.utils.flop_counter` sees them below autograd, but imports `torch._dynamo`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dlrun.engine.forward.recomputing import keeping_all
from dlrun.engine.objective import Objective
from dlrun.types import Batch


@dataclass(frozen=True)
class StepCost:
    """The cost of a step.

    It has `flop` operations (0: not known), for `samples` samples of `tokens` tokens (0: no text). `peak` is the FLOP a
    second that the device could reach, None if it is not known. `seen` maps a number of steps to their samples, where
    the last batch of an epoch is smaller. `passes` is the number of passes over a batch so far, where a step takes
    another number than one.
    """

    flop: int
    samples: int
    tokens: int = 0
    peak: float | None = None
    seen: Callable[[int], int] | None = None
    passes: Callable[[], int] | None = None

    def at(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Add tokens a second and cost to a point."""
        rate = values.get("throughput/samples_per_second")
        if rate is None:  # a validation
            return dict(values)
        tokens = {"throughput/tokens_per_second": rate * self.tokens} if self.tokens else {}
        cost = {f"cost/{name}": value for name, value in self.of(step, rate).items()}
        return dict(values) | tokens | cost

    def of(self, steps: int, samples_per_second: float) -> dict[str, float]:
        """Operations of the first `steps` steps, and the share of peak at that rate.

        This share is the model FLOP utilisation (mfu): of the operations that a forward and a backward pass need,
        not of those computed twice (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

        >>> StepCost(flop=600, samples=10, peak=1e4).of(steps=50, samples_per_second=50.0)
        {'flop': 30000.0, 'mfu': 0.3}
        """
        if not self.flop:
            return {}
        samples = self.seen(steps) if self.seen else steps * self.samples
        flop = self.flop / self.samples
        if self.passes:
            flop *= self.passes() / max(steps, 1)
        share = {"mfu": flop * samples_per_second / self.peak} if self.peak else {}
        return {"flop": float(round(flop * samples))} | share


_PRODUCTS = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "linalg_matmul", "mm", "bmm", "mv", "dot"), 0),
    **dict.fromkeys(("addmm", "addmm_", "addbmm", "addbmm_", "baddbmm", "baddbmm_", "addmv"), 1),
}
"""Functions that are one product of two tensors, and the place of the first of them."""

_COMPOSED = ("multi_head_attention_forward",)
"""Functions written in Python: the products are those of the functions that they call."""

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Whole recurrent networks: each weight acts once on each token, and twice more backward."""


def count_flops(objective: Objective, batch: Batch) -> int:
    """The FLOP of one forward and backward pass.

    The model, its buffers and the random numbers are left as they were. A fused attention counts without what its
    backward pass computes again, and a causal one as a full one.

    >>> model = torch.nn.Linear(3, 2)
    >>> objective = Objective(model, lambda model, batch: model(batch.x).sum())
    >>> count_flops(objective, Batch(torch.ones(5, 3), torch.ones(5)))  # 2·5·3·2, and once more for the weight
    120
    """
    buffers = {name: b.clone() for name, b in objective.model.named_buffers()}
    device = batch.tensors()[0].device
    devices = [device.index or 0] if device.type == "cuda" else []
    counter = _Counter()
    try:
        # what is computed twice counts once
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), keeping_all(objective.model), counter:
            objective(batch)
    finally:
        with torch.no_grad():
            for name, b in objective.model.named_buffers():
                b.copy_(buffers[name])
    return counter.flops


class _Counter(TorchFunctionMode):
    """Counts the products of the functions called within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(
        self, func: Callable[..., Any], kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _COMPOSED:
            with self:
                return _undispatched(func)(*args, **kwargs)
        result = func(*args, **kwargs)
        if name in _PRODUCTS:
            a, b = _two(args, kwargs, _PRODUCTS[name])
            self._add(_product(a, b, result), a, b)
        elif name.startswith("conv") and isinstance(result, Tensor):
            a, b = _two(args, kwargs, 0)
            # a transposed convolution multiplies each input by the kernel, any other sums it up to each output
            larger = a if "transpose" in name else result
            self._add(2 * larger.numel() * prod(b.shape[1:]), a, b)
        elif name == "scaled_dot_product_attention":
            self._attention(*_two(args, kwargs, 0), args[2] if len(args) > 2 else kwargs["value"])
        elif name == "tensordot":
            a, b = _two(args, kwargs, 0)  # of sizes M·K and K·N, with a result of M·N
            self._add(2 * isqrt(a.numel() * b.numel() * result.numel()), a, b)
        elif name in ("inner", "vdot"):
            a, b = _two(args, kwargs, 0)
            self._add(2 * result.numel() * (a.shape[-1] if a.ndim and b.ndim else 1), a, b)
        elif name == "bilinear":
            self._bilinear(*_two(args, kwargs, 0), args[2] if len(args) > 2 else kwargs["weight"])
        elif name == "cdist" and (args[2] if len(args) > 2 else kwargs.get("p", 2)) == 2:
            a, b = _two(args, kwargs, 0)
            # |a|² + |b|² - 2 a·b: of other norms nothing is a product
            self._add(2 * result.numel() * a.shape[-1], a, b)
        elif name == "einsum":
            self._einsum(args)
        elif name in _RECURRENT:
            weights = [w for group in args if isinstance(group, (list, tuple)) for w in group if w.ndim == 2]
            # without a gradient to compute, the forward pass alone
            each = 6 if args[0].requires_grad or any(w.requires_grad for w in weights) else 2
            self.flops += each * (args[0].numel() // args[0].shape[-1]) * sum(w.numel() for w in weights)
        return result

    def _add(self, forward: int, *factors: Tensor) -> None:
        self.flops += forward * (1 + sum(f.requires_grad for f in factors))

    def _attention(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Count softmax(q kᵀ) v."""
        rows = 2 * prod(query.shape[:-1]) * key.shape[-2]
        # they need a gradient if one of their factors does
        scores = query.requires_grad or key.requires_grad
        self._add(rows * query.shape[-1], query, key)
        self.flops += rows * value.shape[-1] * (1 + scores + value.requires_grad)

    def _bilinear(self, a: Tensor, b: Tensor, weight: Tensor) -> None:
        """Count (a W) b, with a [..., I], b [..., J] and W [O, I, J]."""
        rows = 2 * prod(a.shape[:-1]) * weight.shape[0] * b.shape[-1]
        product = a.requires_grad or weight.requires_grad
        self._add(rows * a.shape[-1], a, weight)
        self.flops += rows * (1 + product + b.requires_grad)

    def _einsum(self, args: tuple[Any, ...]) -> None:
        """Count the contraction of two tensors."""
        tensors = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        inputs = args[0].replace(" ", "").split("->")[0].split(",") if isinstance(args[0], str) else []
        if len(inputs) != 2 or "." in args[0]:  # more factors, or an ellipsis: not counted
            return
        sizes = {i: n for labels, t in zip(inputs, tensors, strict=True) for i, n in zip(labels, t.shape, strict=True)}
        # one multiplication and addition for each tuple of indices
        self._add(2 * prod(sizes.values()), *tensors)


def _two(args: tuple[Any, ...], kwargs: dict[str, Any], place: int) -> tuple[Tensor, Tensor]:
    given = [*args, *(v for v in kwargs.values() if isinstance(v, Tensor))]
    return given[place], given[place + 1]


def _product(a: Tensor, b: Tensor, result: Tensor) -> int:
    # addbmm adds up its batch, so that its result is smaller than what was computed
    return 2 * max(result.numel() * a.shape[-1], a.numel() * b.shape[-1] if a.ndim == 3 and b.ndim == 3 else 0)


def _undispatched(func: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a PyTorch function, without its check for overrides."""
    # it would find our mode again, and call itself without end
    function = cast("types.FunctionType", func)
    never = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_: False
    )
    copy = types.FunctionType(
        function.__code__, function.__globals__ | never, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
