"""A model makes weights of training inputs, once: not again when the run is loaded or resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun.runs.reload.loaded import load
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses

MODEL = """
import torch
class Centred(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(64), requires_grad=False)
        self.linear = torch.nn.Linear(64, outputs)
    def init_from_inputs(self, x):
        {body}
    def forward(self, x):
        return self.linear(x.flatten(1) - self.mean)
"""


@pytest.fixture
def train(here: Path, call: Callable[..., Called]) -> Callable[[str], Called]:
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "centred.yaml").write_text("_target_: centred.Centred\n")

    def trained(body: str) -> Called:
        (here / "centred.py").write_text(MODEL.format(body=body))
        quick = ("trainer.steps=4", "trainer.checkpoint_every=2", "tracking.enabled=false", "trainer.figures=false")
        return call("train", "model=centred", "dataset.normalise=false", *quick)

    return trained


def test_the_weights_are_made_of_the_first_training_inputs(train: Callable[[str], Called]) -> None:
    done = train("self.mean.data.copy_(x.flatten(1).mean(0))")
    assert done.code == 0, done.err
    run = load(str(all_runs()[-1].path))
    x = run.data.train.gather(torch.arange(len(run.data.train))).x
    assert len(x) < 5000
    torch.testing.assert_close(run.model.mean, x.flatten(1).mean(0))


def test_what_it_raises_is_one_message(train: Callable[[str], Called]) -> None:
    refuses(train("raise ValueError('no images')"), "its `init_from_inputs` failed", "ValueError: no images")
