"""The bare loop that a step is measured against (F. Fleuret's slides, AMLD 2018, 41-42)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def train(
    model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int, lr: float, criterion: nn.Module | None = None
) -> None:
    """Train one epoch in the order of the samples; the default loss is cross-entropy."""
    criterion = criterion or nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for b in range(0, len(x), batch_size):
        output = model(x.narrow(0, b, batch_size))
        loss = criterion(output, y.narrow(0, b, batch_size))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
