"""One run whose weights are cut among processes (FSDP): the run of one process, up to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.config import compose
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.execution.ranks.sharded import strategy
from dlrun.execution.ranks.sharded.blocks import LARGE, find_blocks
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.layered import LayeredRule, ParameterGroup
from dlrun.optimizers.muon import Muon
from dlrun.optimizers.parameters import is_elementwise
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.runs.build import build
from dlrun.storage import checkpoint
from dlrun.types import Batch, Rule
from tests.execution.ranks.conftest import Together
from tests.execution.ranks.test_ranks import OFF, assert_close, summary, weights

GPT = (
    *("dataset=text", "dataset.path=text.txt", "dataset.context=32", "model=gpt", "model.width=16"),
    *("model.layers=2", "model.heads=2", "model.dropout=0", "trainer.steps=5", "trainer.batch_size=3"),
)

CASES = {
    # of 1297 samples the third batch has one: a process has none, and all have to take part in two portions
    "sgd": (
        *("trainer.batch_size=648", "dataset.augment={shift: 1, flip: true}", "optimizer=sgd", "optimizer.lr=0.1"),
        *("optimizer.momentum=0.9", "trainer.clip=0.5", "trainer.ema=0.9", "trainer.log_gradients=true"),
        *("trainer.accumulate=2", "trainer.steps=4", "trainer.evaluate_every=2", "evaluation.batch_size=50"),
    ),
    "adamw": (*GPT, "optimizer=adamw", "trainer.activation_checkpointing=true", "trainer.clip=1"),
    "torch": (
        *("optimizer._target_=torch.optim.NAdam", "loss.class_weights=balanced", "trainer.batch_size=50"),
        *("trainer.steps=4", "trainer.memory_format=channels_last", "model=lenet5"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_processes_with_pieces_train_as_one(together: Together, here: Path, case: str) -> None:
    (here / "text.txt").write_text("the cat sat on the mat. " * 40)
    given = (*OFF, *CASES[case])
    assert [each.code for each in together(1, "train", "name=one", *given)] == [0]
    done = together(2, "train", "name=with2", *given, "trainer.strategy=fsdp")
    assert [each.code for each in done] == [0, 0], done
    assert "a part of the weights (fsdp)" in done[0].out
    assert not any(each.err for each in done)
    assert_close(here, "one", "with2")
    assert summary(here, "with2")[1]["execution"]["strategy"] == "fsdp"


def test_a_resumed_run_is_the_same_to_the_bit(together: Together, here: Path) -> None:
    given = (*OFF, "trainer.log_every=5", "trainer.strategy=fsdp", "trainer.ema=0.9", "optimizer=adam")
    together(2, "train", "name=whole", "trainer.steps=9", *given)
    together(2, "train", "name=parts", "trainer.steps=5", *given)
    folder, _ = summary(here, "parts")
    assert "resumed   from step 5" in together(2, "resume", str(folder), "trainer.steps=9")[0].out
    (whole, one), (parts, other) = summary(here, "whole"), summary(here, "parts")
    contents = [checkpoint.load(each / "checkpoints" / "last.pt") for each in (whole, parts)]
    assert torch.equal(weights(whole), weights(parts))
    for first, second in zip(*(content.average or [] for content in contents), strict=True):
        assert torch.equal(first, second)
    for name in ("mean", "square"):
        states = [content.optimizer[name] for content in contents]
        assert all(torch.equal(*pair) for pair in zip(*states, strict=True))
    assert one["metrics"] == other["metrics"]
    # and any number of processes takes it on, whole or in pieces
    for step, number, way in ((10, 3, "fsdp"), (11, 2, "ddp"), (12, 1, "ddp")):
        changed = (f"trainer.steps={step}", f"trainer.devices={number}", f"trainer.strategy={way}")
        done = together(number, "resume", str(folder), *changed)
        assert [each.code for each in done] == [0] * number, done


class Scaled(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, outputs)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) * self.scale


class Counting(Scaled):
    seen: Tensor

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(input_shape, outputs)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("given", "observers", "words"),
    [
        (["optimizer=muon"], [], "Muon is not known to change each number of a weight by itself"),
        ([f"model._target_={__name__}.Scaled"], [], "the weight scale is a number without an axis"),
        ([f"model._target_={__name__}.Counting"], [], "the buffer seen changes in training"),
        ([], ["look"], "observers.look may look at the model in training"),
    ],
)
def test_what_cannot_be_cut(given: list[str], observers: list[str], words: str) -> None:
    training = build(compose.config([*OFF, *given]), try_steps=False).training
    with pytest.raises(ConfigError, match=words) as error:
        strategy.blocks_of(training, observers, unused=False)
    assert "Type trainer.strategy=ddp" in str(error.value)


class Stack(nn.Module):
    """Blocks, of which one shares a weight, one is called twice, and one's weight is used from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(5))
        self.large = nn.Linear(8, LARGE // 8)
        self.head = nn.Linear(8, 8)
        self.blocks[1][0].weight = self.head.weight  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = self.blocks[2](x) + F.linear(x, self.blocks[3][0].weight)  # type: ignore[index]
        return self.head(x)[:, :4] + self.large(x)[:, :4]


def test_blocks_are_modules_whose_weights_nothing_else_uses() -> None:
    batch = Batch(torch.randn(2, 8), torch.tensor([0, 1]))
    assert find_blocks(Objective(Stack(), cross_entropy), batch) == ["0.blocks.0", "0.blocks.4", "0.large"]


class Other(Adam):
    """A rule derived from one that is elementwise, and not known to be so."""


def layered(rule: Rule) -> LayeredRule:
    return LayeredRule([rule, Adam(0.1)], [ParameterGroup([0]), ParameterGroup([1])])


def test_rules_say_whether_they_are_elementwise() -> None:
    assert all(map(is_elementwise, (Adam(0.1), adapt(torch.optim.RMSprop, lr=0.1), layered(Adam(0.1)))))
    others = (Other(0.1), Muon(0.1), adapt(torch.optim.Adafactor, lr=0.1), layered(Muon(0.1)))
    assert not any(map(is_elementwise, others))
