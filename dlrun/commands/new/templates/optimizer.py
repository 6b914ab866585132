from typing import Any

import torch
from torch import Tensor


class MyPart:
    """Gradient descent with momentum."""

    def __init__(self, lr: float = 0.05, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        # before the first step; decay says on which parameters a weight decay should act
        self.velocity = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        # each step, in place; lr is self.lr times the schedule, and the gradients are clipped already
        for p, g, v in zip(params, grads, self.velocity, strict=True):
            v.mul_(self.momentum).add_(g)
            p.sub_(lr * v)

    # into a checkpoint and out of it, so that a resumed run is exact
    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.velocity = state["velocity"]
