"""Lightning's `configure_optimizers` as an optimizer of dlrun, and its `training_step` as a loss.

Of what `configure_optimizers` may return: an optimizer, alone or in a list, or a dict or pair with one schedule that is
taken each step. Several optimizers that take turns are another loop. Rates are those of the module: `optimizer.lr`
is 1, a factor. `self.log` does nothing here: dlrun logs the loss and the metrics.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.nests.batch import Batch
from dlrun.types import Update

# Lightning's own: there is no trainer
warnings.filterwarnings("ignore", message=r"You are trying to `self\.log\(\)`")


class FromModule:
    """Steps by what the module configures."""

    lr = 1.0

    def init(self, objective: Objective) -> None:
        optimizers, schedules = _lists(objective.model.configure_optimizers())
        if len(optimizers) != 1 or len(schedules) > 1:
            raise ConfigError(
                f"{len(optimizers)} optimizers and {len(schedules)} schedules: expected one, and at most one"
            )
        self.optimizer, self.schedule = optimizers[0], None
        for schedule in schedules:
            # Lightning takes one by epochs unless a dict says otherwise
            if not isinstance(schedule, dict) or schedule.get("interval", "epoch") != "step":
                raise ConfigError(
                    'a schedule by epochs: return it as {"scheduler": …, "interval": "step"}, or leave it to dlrun, '
                    "such as schedule=cosine"
                )
            self.schedule = schedule["scheduler"]

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


def _lists(configured: Any) -> tuple[list[Any], list[Any]]:
    """The optimizers and the schedules."""
    if isinstance(configured, dict):
        return [configured["optimizer"]], [configured["lr_scheduler"]] if "lr_scheduler" in configured else []
    if isinstance(configured, tuple) and len(configured) == 2 and all(isinstance(each, list) for each in configured):
        return configured
    return (list(configured), []) if isinstance(configured, (list, tuple)) else ([configured], [])


def training_step(model: nn.Module, batch: Batch) -> Tensor:
    """The module's own loss, a mean over the batch."""
    loss = model.training_step(tuple(batch), 0)
    return loss["loss"] if isinstance(loss, dict) else loss
