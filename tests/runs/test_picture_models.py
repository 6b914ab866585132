"""Networks with batch norms and auxiliary heads go the whole way: averages, resuming, testing, exporting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import dlrun as package
from dlrun.engine.ema import Average
from dlrun.engine.parameters.kinds import norm_statistics
from dlrun.runs.export.for_trackers import load_model
from dlrun.storage import lookup
from tests.conftest import Called

MODELS = {
    "googlenet": ("+dataset.side=20",),  # the smallest that it takes: it has no narrower variant
    "resnet20": ("model.width=4", "model.zero_init=true"),
}
QUICK = ("trainer.batch_size=8", "optimizer.lr=0.001", "tracking.enabled=false", "trainer.figures=false")

PICTURES = """
import torch
from dlrun.datasets import from_tensors


def pictures(n: int = 40, side: int = 32):
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 10
    x = torch.rand(n, 3, side, side, generator=draw) + y[:, None, None, None] / 10
    return from_tensors("pictures", (x, y), task="classification", validation_size=8, test_size=8)
"""


@pytest.fixture
def pictures(here: Path) -> None:
    (here / "pictures.py").write_text(PICTURES)
    (here / "conf/dataset").mkdir(parents=True)
    (here / "conf/dataset/pictures.yaml").write_text("_target_: pictures.pictures\n")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usefixtures("pictures")
def test_the_whole_way(model: str, call: Callable[..., Called]) -> None:
    choices = ("dataset=pictures", f"model={model}", *MODELS[model], *QUICK)
    assert call("check", *choices).code == 0
    done = call("train", *choices, "trainer.steps=2", "trainer.ema=0.5", "trainer.evaluate_every=1")
    assert done.code == 0, done.err
    (run,) = lookup.all_runs()
    before = run.summary()
    assert (before.steps, before.test_reads) == (2, 1)
    # the same numbers by batches of any size
    tested = [call("test", run.id, "--split", "validation", "--batch-size", size).out for size in ("3", "100")]
    assert tested[0].splitlines()[1:3] == tested[1].splitlines()[1:3]
    assert call("resume", run.id, "trainer.steps=4").code == 0
    assert run.summary().steps == 4
    exported, x = load_model(run)
    loaded = package.load(run.id)
    with torch.no_grad():
        assert torch.equal(exported(x), loaded.model.eval()(x))


def test_running_values_of_norms_are_averaged_with_the_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average = Average(list(model.parameters()), 0.9, norm_statistics(model))
    expected = [t.detach().clone() for t in (model[0].weight, model[1].running_mean, model[1].running_var)]
    for step in range(1, 4):
        model(torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step)))
        with torch.no_grad():
            model[0].weight.add_(1.0)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        now = (model[0].weight, model[1].running_mean, model[1].running_var)
        expected = [decay * e + (1 - decay) * t.detach() for e, t in zip(expected, now, strict=True)]
    last = model[1].running_var.clone()
    with average.applied():
        for found, value in zip((model[0].weight, model[1].running_mean, model[1].running_var), expected, strict=True):
            torch.testing.assert_close(found, value)
    assert torch.equal(model[1].running_var, last)
    assert int(model[1].num_batches_tracked) == 3


def test_a_checkpoint_whose_average_has_weights_alone_is_read() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average = Average(list(model.parameters()), 0.9, norm_statistics(model))
    model[1].running_mean.fill_(5.0)
    average.load([torch.ones_like(p) for p in model.parameters()])
    with average.applied():
        assert float(model[1].weight.detach().mean()) == 1.0
        assert float(model[1].running_mean.mean()) == 5.0
    with pytest.raises(ValueError, match="other shapes"):
        average.load([torch.ones(2)])
