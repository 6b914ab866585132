"""dlrun with compiled steps."""

from __future__ import annotations

from benchmarks.peers import ours
from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work


def train(work: Work, watch: Watch) -> dict[str, float]:
    return ours.train(work, watch, compiled=True)
