"""skorch: scikit-learn's interface."""

from __future__ import annotations

import torch
from skorch import NeuralNet

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work


def train(work: Work, watch: Watch) -> None:
    net = NeuralNet(
        watch.seen(work.fresh()),
        criterion=work.criterion,
        optimizer=torch.optim.SGD,
        lr=work.lr,
        max_epochs=1,
        batch_size=work.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    net.fit(work.x, work.y)
