"""The first operator that does not repeat itself is named, and no other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dlrun.execution.nondeterminism import first_nondeterministic


def test_dropout_and_fresh_memory_repeat_themselves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 2)).train()
    x = torch.randn(32, 64)

    def step() -> None:
        torch.manual_seed(1)
        used = [torch.full((size,), float(size)) for size in (64, 4096)]  # memory that the next ones get, not empty
        del used
        torch.empty(64).zero_(), x.new_empty(4096).zero_(), torch.empty_like(x).fill_(1.0)
        torch.autograd.grad(F.dropout(model(x), 0.5).square().sum(), list(model.parameters()))

    assert first_nondeterministic(step) is None


def test_what_draws_without_a_seed_is_named() -> None:
    def step() -> None:
        torch.empty(512).zero_()
        torch.rand(3)

    assert first_nondeterministic(step) == "aten.rand.default"
