"""Runs on several inputs, on padded sequences and on weighted samples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pytest import approx
from torch.nn import functional as F

import dlrun as package
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]

PARTS = """
import torch
from torch import nn
from torch.nn import functional as F

from dlrun.datasets import Pad, from_datasets, from_nested, from_tensors


def two(weights=False):
    g = torch.Generator().manual_seed(0)
    x = {"image": torch.randn(90, 1, 4, 4, generator=g), "age": torch.rand(90, generator=g)}
    pair = x, (x["age"] > 0.5).long()
    return from_nested("two", (*pair, x["age"]) if weights else pair, task="classification", validation_size=20,
                       test_size=20)


class Two(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.combine = nn.Linear(torch.Size(input_shape["image"]).numel() + 1, outputs)

    def forward(self, x):
        return self.combine(torch.cat([x["image"].flatten(1), x["age"]], 1))


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, i):
        tokens = torch.arange(1 + i % 5) + i % 3
        return tokens, tokens % 2


def tags():
    lengths = [1 + i % 5 for i in range(60)]
    return from_datasets("tags", Tokens(), Tokens(), task="dense", classes=2, collate=Pad(), lengths=lengths, bucket=2)


class Tagger(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.embed, self.combine = nn.Embedding(10, 4), nn.Linear(4, outputs)

    def forward(self, x):
        return self.combine(torch.relu(self.embed(x)))


class Heads(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.value, self.other = nn.Linear(*input_shape, 1), nn.Linear(*input_shape, 2)

    def forward(self, x):
        return {"value": self.value(x), "signs": self.other(x)}


def heads(model, batch):
    return F.mse_loss(model(batch.x), batch.y["value"], reduction="none").mean(1) + batch.y["other"].abs()


def targets():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=g)
    y = {"value": x[:, :1], "other": x[:, 1], "sign": (x[:, 2] > 0).long()}
    return from_nested("targets", (x, y), task="other", outputs=1, validation_size=12)
"""

QUICK = ("trainer.steps=6", "trainer.batch_size=16", "tracking.enabled=false", "trainer.evaluate_every=2")


@pytest.fixture
def parts(here: Path) -> Iterator[Path]:
    (here / "parts.py").write_text(PARTS)
    targets = {
        "dataset/two": "two", "model/both": "Two", "dataset/tags": "tags", "model/tagger": "Tagger",
        "dataset/targets": "targets", "loss/heads": "heads", "model/heads": "Heads",
    }  # fmt: skip
    for name, target in targets.items():
        path = here / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_target_: parts.{target}\n" + ("weights: false\n" if name == "dataset/two" else ""))
    yield here
    sys.modules.pop("parts", None)


@pytest.mark.parametrize(
    "given",
    [
        ("dataset=two", "model=both"),
        ("dataset=two", "model=both", "dataset.weights=true", "trainer.ema=0.9"),
        ("dataset=tags", "model=tagger", "loss=cross_entropy", "trainer.workers=2"),
        ("dataset=targets", "model=mlp", "model.width=8", "loss=heads"),
    ],
    ids=["inputs", "weights", "padded", "targets"],
)
@pytest.mark.usefixtures("parts")
def test_a_killed_run_resumes_to_the_same_bits(verify_resume: Call, given: tuple[str, ...]) -> None:
    done = verify_resume(*given, *QUICK)
    assert done.code == 0, done.err
    says(done.out, "equal")


@pytest.mark.parametrize("size", [3, 1000])
@pytest.mark.usefixtures("parts")
def test_the_numbers_are_those_of_the_samples(call: Call, size: int) -> None:
    done = call("train", "dataset=two", "model=both", "dataset.weights=true", f"evaluation.batch_size={size}", *QUICK)
    assert done.code == 0, done.err
    [folder] = all_runs()
    run = package.load(folder.id)
    batch = run.data.test.gather(torch.arange(20))
    assert batch.weight is not None
    with torch.no_grad():
        each = F.cross_entropy(run.model(batch.x), batch.y, reduction="none")
    metrics = folder.summary().metrics
    assert metrics["test/loss"] == approx(float((each * batch.weight).sum() / batch.weight.sum()), rel=1e-5)


@pytest.mark.usefixtures("parts")
def test_what_takes_one_tensor_says_so(call: Call) -> None:
    refuses(call("train", "dataset=two", "model=mlp", *QUICK), "one tensor", "image [1, 4, 4], age [1]")
    refuses(call("train", "dataset=targets", "model=mlp", "loss=mse", *QUICK), "a tensor", "of your own")
    refuses(call("train", "dataset=targets", "loss=heads", "trainer.accumulate=2", *QUICK), "several targets")


@pytest.mark.usefixtures("parts")
def test_losses_and_metrics_take_entries_by_name(call: Call) -> None:
    entries = ("+loss.output=signs", "+loss.target=sign", "+metrics.wrong._target_=dlrun.metrics.error")
    given = ("dataset=targets", "model=heads", *entries, "+metrics.wrong.output=signs")
    done = call(
        "train", *given, "+metrics.wrong.target=sign", "evaluation.monitor=val/wrong", "optimizer.lr=0.1", *QUICK
    )
    assert done.code == 0, done.err
    [folder] = all_runs()
    run = package.load(folder.id)
    batch = run.data.validation.gather(torch.arange(12))
    with torch.no_grad():
        found = run.model(batch.x)["signs"].argmax(1)
    assert folder.summary().metrics["val/wrong"] == approx(float((found != batch.y["sign"]).double().mean()))
    refuses(call("train", *given, "+metrics.wrong.target=signs", *QUICK), "value, other, sign")
    refuses(call("train", "dataset=targets", "model=heads", "+loss.output=[a]", *QUICK), "the name of an entry")
