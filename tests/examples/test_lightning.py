"""What a module's `configure_optimizers` may return to the adapter of `examples/lightning`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dlrun.errors import ConfigError

ADAPTER = Path(__file__).parents[2] / "examples" / "lightning" / "adapter.py"
WEIGHT = nn.Parameter(torch.zeros(1))
SGD = torch.optim.SGD([WEIGHT], lr=0.2)
DECAY = torch.optim.lr_scheduler.StepLR(SGD, 10)
EACH_STEP = {"scheduler": DECAY, "interval": "step"}


def made(configured: Any) -> Any:
    spec = importlib.util.spec_from_file_location("lightning_adapter", ADAPTER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    optimizer = module.FromModule()
    optimizer.init(SimpleNamespace(model=SimpleNamespace(configure_optimizers=lambda: configured)))
    return optimizer


@pytest.mark.parametrize(
    ("configured", "schedule"),
    [
        (SGD, None),
        ([SGD], None),
        ({"optimizer": SGD}, None),
        ({"optimizer": SGD, "lr_scheduler": EACH_STEP}, DECAY),
        (([SGD], [EACH_STEP]), DECAY),
    ],
)
def test_it_is_taken(configured: Any, schedule: Any) -> None:
    optimizer = made(configured)
    assert (optimizer.optimizer, optimizer.schedule) == (SGD, schedule)


@pytest.mark.parametrize(
    "configured",
    [
        {"optimizer": SGD, "lr_scheduler": DECAY},
        {"optimizer": SGD, "lr_scheduler": {"scheduler": DECAY}},
        ([SGD], [DECAY]),
        ([SGD, SGD], [EACH_STEP, EACH_STEP]),
        [SGD, SGD],
    ],
)
def test_what_would_be_another_training_is_refused(configured: Any) -> None:
    with pytest.raises(ConfigError, match=r"by epochs|2 optimizers"):
        made(configured)
