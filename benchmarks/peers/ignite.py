"""PyTorch-Ignite's supervised trainer."""

from __future__ import annotations

import torch
from ignite.engine import create_supervised_trainer
from torch.utils.data import DataLoader

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work, samples


def train(work: Work, watch: Watch) -> None:
    model = watch.seen(work.fresh())
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr)
    trainer = create_supervised_trainer(model, optimizer, work.criterion(), device="cpu")
    trainer.run(DataLoader(samples(work), batch_size=work.batch_size, shuffle=True), max_epochs=1)
