"""A bare loop: of F. Fleuret's slides (AMLD 2018, 41-42), and of nanoGPT for the GPT."""

from __future__ import annotations

from benchmarks import bare, gpt
from benchmarks.peers.watch import Watch
from benchmarks.peers.works import RECIPE, Work


def train(work: Work, watch: Watch) -> None:
    model = watch.seen(work.fresh())
    if work.name == "gpt":
        gpt.train(model, work.x, RECIPE, work.steps)
    else:
        bare.train(model, work.x, work.y, batch_size=work.batch_size, lr=work.lr, criterion=work.criterion())
