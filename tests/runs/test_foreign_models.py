"""Models of other libraries by their `_target_` alone: trained, resumed, predicted with, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import dlrun as package
from dlrun.config import compose
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("trainer.batch_size=8", "tracking.enabled=false", "trainer.figures=false")

SHOP = """
import torch
from dlrun.datasets import from_tensors


class Net(torch.nn.Module):
    def __init__(self, num_classes=1000, dropout=0.5):
        super().__init__()
        self.fc, self.dropout = torch.nn.Linear(3 * 32 * 32, num_classes), dropout

    def forward(self, x):
        return self.fc(torch.nn.functional.dropout(x.flatten(1), self.dropout, self.training))


def net(*, weights=None, progress=True, **kwargs):
    return Net(**kwargs)


def pictures(n=48):
    x = torch.randint(256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return from_tensors(
        "pictures", (x, torch.arange(n) % 10), task="classification", validation_size=8, test_size=8, classes=10
    )


class Vit(torch.nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = ViTConfig(image_size=input_shape[-1], patch_size=8, num_labels=outputs, **sizes)
        self.vit = ViTForImageClassification(config)

    def forward(self, x):
        return self.vit(x).logits
"""
NEEDS = {
    "shop.net": None,
    "torchvision.models.resnet18": "torchvision",
    "timm.create_model": "timm",
    "shop.Vit": "transformers",
}
SIZES = {
    "shop.net": ("model.num_classes=10",),
    "torchvision.models.resnet18": ("model.num_classes=10",),
    "timm.create_model": ("model.model_name=resnet10t", "model.num_classes=10"),
    "shop.Vit": (),
}


@pytest.fixture
def shop(here: Path) -> None:
    (here / "shop.py").write_text(SHOP)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("target", NEEDS)
def test_the_whole_way(target: str, call: Call, here: Path) -> None:
    if library := NEEDS[target]:
        pytest.importorskip(library, reason=f"needs {library}: pip install {library}")
    words = ("dataset._target_=shop.pictures", f"model._target_={target}", *SIZES[target], *QUICK)
    done = call("train", *words, "trainer.steps=2")
    assert done.code == 0, done.err
    (run,) = all_runs()
    assert call("resume", run.id, "trainer.steps=4").code == 0
    assert run.summary().steps == 4
    raw = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    np.save(here / "x.npy", raw)
    done = call("predict", run.id, "x.npy", "--output", "x.npz")
    assert done.code == 0, done.err
    own = package.load(run.id)
    wanted = own.model(own.prepare(torch.from_numpy(raw))).detach()
    with np.load("x.npz") as arrays:
        assert np.allclose(arrays["outputs"], wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert call("export", run.id, "x.pt2").code == 0
    found = torch.export.load("x.pt2").module()(own.prepare(torch.from_numpy(raw)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("shop")
def test_a_target_alone_takes_no_keys_of_the_default_choice(call: Call) -> None:
    given = ("dataset._target_=shop.pictures", "model._target_=shop.Net", "model.num_classes=10")
    cfg = compose.config(given)
    # `dropout` of the default, 0, is not this class's
    assert cfg.model == {"_target_": "shop.Net", "num_classes": 10}
    assert cfg.dataset == {"_target_": "shop.pictures"}
    assert compose.config(["model=mlp", "model._target_=shop.Net"]).model.dropout == 0.0
    assert "dropout" not in compose.config(["+experiment=digits", "model._target_=shop.Net"]).model
    done = call("train", *given, *QUICK, "trainer.steps=1")
    assert done.code == 0, done.err
    assert all_runs()[0].path.name.split("-")[1:3] == ["pictures", "Net"]


@pytest.mark.usefixtures("shop")
def test_a_sweep_over_targets_has_a_job_each(call: Call) -> None:
    words = ("dataset._target_=shop.pictures", "model._target_=shop.net,shop.Net", "model.num_classes=10")
    done = call("train", "-m", *words, *QUICK, "trainer.steps=1", "hydra/launcher=batched", "evaluation.test=never")
    assert done.code == 0, done.err
    says(done.out, "model._target_=shop.net", "model._target_=shop.Net", "2 finished")


@pytest.mark.usefixtures("shop")
def test_a_wrong_number_of_outputs_is_told(call: Call) -> None:
    words = ("dataset._target_=shop.pictures", "model._target_=shop.net")
    refuses(call("train", *words, *QUICK), "1000 values for the 10 classes")


def test_torchvision_is_told_the_words_to_type(call: Call, shop: None) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision: pip install torchvision")
    words = ("dataset._target_=shop.pictures", "model._target_=torchvision.models.resnet18")
    refuses(call("train", *words, *QUICK), "model.num_classes=10")
