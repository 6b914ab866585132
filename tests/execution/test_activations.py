"""The peak of a step's activations, against sums by hand and against what hooks on saved tensors see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dlrun.engine.forward.checkpointing import apply
from dlrun.execution.activations import peak_of
from dlrun.models.revnet import RevNet

N = 1 << 20
"""Numbers of an activation; 4 bytes each."""


def step(model: Callable[[Tensor], Tensor], params: list[Tensor], x: Tensor) -> list[Tensor]:
    return [*torch.autograd.grad(model(x).sum(), params)]


def test_a_peak_is_the_sum_by_hand() -> None:
    x = torch.ones(N)

    def alive() -> list[Tensor]:
        a = x + 1
        b = a.view(2, -1) + 1  # a view is no memory of its own
        del a
        c = b + 1
        return [c.sum()]

    assert peak_of(alive, [x], x.device) == 8 * N
    assert peak_of(lambda: [x.mul_(1)], [x], x.device) == 0


@pytest.mark.parametrize("depth", [3, 9])
def test_a_plain_chain_holds_what_its_graph_saves(depth: int) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(depth)))
    x, params = torch.randn(512, 64), [*model.parameters()]
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in {t.untyped_storage().data_ptr() for t in [*params, x]}:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    found = peak_of(lambda: step(model, params, x), [*params, x], x.device)
    one = x.numel() * 4
    assert sum(saved.values()) == depth * one
    # and the layer under way
    assert found is not None and depth * one < found <= (depth + 2) * one


def test_memory_falls_from_plain_to_checkpointed_to_reversible() -> None:
    found: dict[str, list[int]] = {}
    for depth in (4, 16, 64):
        for way in ("plain", "sqrt", "reversible"):
            torch.manual_seed(0)
            model = RevNet((32,), 5, depth=depth, width=32, reversible=way == "reversible")
            apply(model, "sqrt" if way == "sqrt" else False)
            x, params = torch.randn(64, 32), [*model.parameters()]
            peak = peak_of(partial(step, model, params, x), [*params, x], x.device)
            found.setdefault(way, []).append(peak or 0)
    plain, root, reversible = found["plain"], found["sqrt"], found["reversible"]
    assert 3.3 < plain[1] / plain[0] < 4.2 and 3.3 < plain[2] / plain[1] < 4.2
    assert 1.6 < root[1] / root[0] < 2.4 and 1.6 < root[2] / root[1] < 2.4
    assert len({*reversible}) == 1
    assert reversible[0] < root[0] < plain[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run `pytest -m gpu` on one")
def test_on_a_gpu_it_is_the_allocators_peak() -> None:
    device = torch.device("cuda")
    x = torch.ones(N, device=device)
    assert peak_of(lambda: [(x + 1) * 2], [x], device) == 8 * N
    model = RevNet((32,), 5, depth=16, width=32).to(device)
    inputs, params = torch.randn(4096, 32, device=device), [*model.parameters()]
    reversible = peak_of(lambda: step(model, params, inputs), [*params, inputs], device)
    model.blocks.recomputes = False
    plain = peak_of(lambda: step(model, params, inputs), [*params, inputs], device)
    assert reversible is not None and plain is not None and plain > 4 * reversible
