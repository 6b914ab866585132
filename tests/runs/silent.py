"""A recorder that keeps nothing."""

from __future__ import annotations

from typing import Any


class Silent:
    """Takes the points and the checkpoints of a training."""

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        pass

    def save(self, checkpoint: Any, best: Any) -> None:
        pass
