"""Lightning's `configure_optimizers` as an optimizer of dlrun, and its `training_step` as a loss.

Of what `configure_optimizers` may return: an optimizer, or a dict or pair with one schedule that is taken each step.
Several optimizers that take turns are another loop. Rates are those of the module: `optimizer.lr` is 1, a factor.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.nests.batch import Batch
from dlrun.types import Update


class FromModule:
    """Steps by what the module configures."""

    lr = 1.0

    def init(self, objective: Objective) -> None:
        configured = objective.model.configure_optimizers()
        if isinstance(configured, tuple):
            [self.optimizer], [schedule] = configured
        elif isinstance(configured, dict):
            self.optimizer, schedule = configured["optimizer"], configured.get("lr_scheduler")
        else:
            self.optimizer, schedule = configured, None
        if isinstance(schedule, dict):
            if schedule.get("interval", "epoch") != "step":
                raise ValueError(
                    "a schedule by epochs: give it `interval: step`, or leave it to dlrun (schedule=cosine)"
                )
            schedule = schedule["scheduler"]
        self.schedule = schedule

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        self.optimizer.zero_grad()
        loss = objective(batch)
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        # dlrun keeps no gradients between steps
        self.optimizer.zero_grad()
        return Update(loss.detach(), None)

    def state_dict(self) -> dict[str, Any]:
        # what the groups have beside a rate follows from the module
        return {
            "state": self.optimizer.state_dict()["state"],
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "steps": 0 if self.schedule is None else self.schedule.last_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["state"]})
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate
        if self.schedule is not None:
            self.schedule.last_epoch = state["steps"]


def training_step(model: nn.Module, batch: Batch) -> Tensor:
    """The module's own loss, a mean over the batch."""
    loss = model.training_step(tuple(batch), 0)
    return loss["loss"] if isinstance(loss, dict) else loss
