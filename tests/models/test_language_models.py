"""The models of text: causal, one pass equal to many steps, and able to learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dlrun.config import instantiate
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.gpt import GPT
from dlrun.models.lstm import LSTM
from dlrun.models.noncausal import NonCausal, noncausal
from dlrun.optimizers.adam import Adam
from dlrun.types import Batch
from tests.engine.test_loop import Notes, cloned, training
from tests.models.test_models import MENU, of_text

T, V = 12, 29
Make = Callable[[], Any]


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def gpt(**options: Any) -> Make:
    return lambda: GPT((T,), V, **{"size": "nano", "layers": 2} | options)


VARIANTS = [
    dict(zip(("positions", "norm", "activation"), values, strict=True))
    for values in itertools.product(("learned", "rotary"), ("layer", "rms"), ("gelu", "swiglu"))
]
LEARNED: dict[str, Make] = {
    **{" ".join(("gpt", *options.values())): gpt(**options) for options in VARIANTS},
    "gpt untied, biases": gpt(tied=False, bias=True),
    "noncausal": lambda: noncausal((T,), V, layers=2),
    "lstm": lambda: LSTM((T,), V, width=24),
    "lstm untied, one layer": lambda: LSTM((T,), V, width=24, layers=1, tied=False),
}
FEW = ("gpt learned layer gelu", "gpt rotary rms swiglu", "gpt untied, biases", "lstm")


def menu() -> dict[str, Make]:
    """The choices of `model=`, with their initial weights."""
    return {
        file.stem: lambda file=file: instantiate.make(  # type: ignore[misc]
            yaml.safe_load(file.read_text()), input_shape=(T,), outputs=V, classes=V, vocabulary=V
        )
        for file in MENU
        # one that classifies texts predicts no token, and one of pairs reads two sequences (test_text_pairs.py)
        if of_text(file) and file.stem not in ("text_classifier", "seq2seq")
    }


def made(make: Make) -> Any:
    """The model in evaluation mode, with weights large enough for every input to matter."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape))
        if hasattr(model, "count"):
            model.count(tokens(40, T, seed=5), tokens(40, T, seed=6))
    return model


causal = pytest.mark.parametrize("make", [*LEARNED.values(), *menu().values()], ids=[*LEARNED, *menu()])
learned = pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)
few = pytest.mark.parametrize("make", [LEARNED[name] for name in FEW], ids=FEW)


@causal
@torch.no_grad()
def test_a_token_changes_no_logits_before_it(make: Make) -> None:
    model, x = made(make), tokens(3, T)
    before = model(x)
    assert before.shape == (3, T, V)
    for t in range(T):
        changed = x.clone()
        changed[:, t] = (x[:, t] + 1) % V
        after = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=1e-5, atol=1e-5)


@learned
@torch.no_grad()
def test_a_token_changes_the_logits_behind_it(make: Make) -> None:
    model, x = made(make), tokens(3, T)
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % V
    difference = (model(changed) - model(x)).abs().amax((0, 2))
    assert (difference[:4] <= 1e-5).all() and (difference[4:] > 1e-4).all()


@causal
@torch.no_grad()
def test_one_pass_equals_a_pass_over_each_prefix(make: Make) -> None:
    model, x = made(make), tokens(3, T)
    prefixes = torch.stack([model(x[:, : t + 1])[:, -1] for t in range(T)], dim=1)
    torch.testing.assert_close(model(x), prefixes, rtol=1e-5, atol=1e-5)


@causal
@pytest.mark.parametrize("cuts", [range(T + 1), (0, 5, 6, 10, T)], ids=["one by one", "in portions"])
@torch.no_grad()
def test_steps_from_a_memory_equal_one_pass(make: Make, cuts: Any) -> None:
    model, x = made(make), tokens(3, T)
    memory, parts = None, []
    for start, end in itertools.pairwise(cuts):
        given = memory
        logits, memory = model.step(x[:, start:end], given)
        torch.testing.assert_close(model.step(x[:, start:end], given)[0], logits)  # the given memory is as it was
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(x), rtol=1e-5, atol=1e-5)


@learned
def test_the_first_loss_is_that_of_a_uniform_guess(make: Make) -> None:
    torch.manual_seed(0)
    loss = cross_entropy(make(), Batch(tokens(16, T), tokens(16, T, seed=1)))
    assert loss.item() == pytest.approx(math.log(V), rel=0.05)


@learned
def test_gradients_reach_every_parameter(make: Make) -> None:
    model = make()
    loss = cross_entropy(model, Batch(tokens(4, T), tokens(4, T, seed=1)))
    for (name, _), g in zip(model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
        assert g.isfinite().all() and g.abs().sum() > 0, name


@few
def test_one_batch_is_learned_by_heart(make: Make) -> None:
    torch.manual_seed(0)
    model, batch = make(), Batch(tokens(4, T), tokens(4, T, seed=1))
    batch.x[:, 0] = torch.arange(4)  # no two texts begin alike
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(400):
        loss = cross_entropy(model, batch)
        if loss.item() < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    model.eval()
    assert torch.equal(model(batch.x).argmax(-1), batch.y)


@pytest.mark.parametrize("make", [GPT, LSTM])
def test_dropout_acts_in_training_only(make: Make) -> None:
    dropping = make((T,), V, dropout=0.5)
    x = tokens(2, T)
    assert not torch.equal(dropping(x), dropping(x))
    dropping.eval()
    assert torch.equal(dropping(x), dropping(x))


@pytest.mark.parametrize("causal_within", [True, False])
@torch.no_grad()
def test_the_noncausal_formulation_has_the_causal_values_if_the_model_within_is_causal(causal_within: bool) -> None:
    model, x = made(lambda: noncausal((T,), V, causal=causal_within)), tokens(3, T)
    one_pass = model.inner(x)[..., :V]
    same = torch.isclose(model(x), one_pass, rtol=1e-5, atol=1e-5)
    assert same[:, -1].all()  # where nothing is unknown, both see the same
    assert same.all() == causal_within


@torch.no_grad()
def test_the_noncausal_formulation_takes_one_pass_a_token_over_what_is_known() -> None:
    seen = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.tolist())
            return F.one_hot(x, 4).float()

    logits = NonCausal(Watched(), context=4, vocabulary=3)(torch.tensor([[0, 2, 1]]))
    assert seen == [[[0, 3, 3, 3]], [[0, 2, 3, 3]], [[0, 2, 1, 3]]]
    assert logits.tolist() == [[[1, 0, 0], [0, 0, 1], [0, 1, 0]]]


@few
@torch.no_grad()
def test_bf16_is_near(make: Make) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), tokens(2, T)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
        memory = model.step(x[:, :5], None)[1]
        behind, _ = model.step(x[:, 5:], memory)
    torch.testing.assert_close(logits.float(), model(x), rtol=0.05, atol=0.02)
    torch.testing.assert_close(behind.float(), logits[:, 5:].float(), rtol=0.05, atol=0.02)


@few
def test_a_resumed_training_is_bit_equal(make: Make) -> None:
    whole, resumed = Notes(), Notes()
    loop.train(of_tokens(make), State(), whole)
    run = of_tokens(make)
    loop.train(run, loop.restore(run, cloned(whole.saved[3])), resumed)
    a, b = (notes.saved[7].model for notes in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], whole.saved[6].model["head.weight"])


def of_tokens(make: Make) -> loop.Training:
    """A run of seven steps with dropout."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        module.dropout = 0.2 * hasattr(module, "dropout")
    run = training(Adam(lr=0.01), objective=Objective(model, cross_entropy), validation=None)
    run.optimizer.init(run.objective)
    split = TensorSplit(tokens(40, T), tokens(40, T, seed=1))
    plan = Plan(steps=7, per_epoch=5, log_every=2, evaluate_every=7, checkpoint_every=1)
    return replace(run, batches=replace(run.batches, split=split, augment=None), plan=plan)
