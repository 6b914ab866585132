"""The transformer and the LSTM beside what they are on paper: values, parameters, operations, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dlrun.config import instantiate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.execution.flops import count_flops
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.attention import attend
from dlrun.models.gpt import GPT
from dlrun.models.gpt_sizes import SIZES, choose_size
from dlrun.models.lstm import LSTM
from dlrun.models.noncausal import noncausal
from dlrun.models.positions import rotate, rotation
from dlrun.types import Batch
from tests.facts import says
from tests.models.test_language_models import Make, T, V, gpt, made, tokens


def test_a_gpt_is_written_out_in_a_few_lines() -> None:
    model, x = made(gpt(layers=1, heads=2, width=8)), tokens(2, T)
    block = model.blocks[0]
    h = model.embedding.weight[x] + model.positions.weight[:T]
    q, k, v = (block.norm1(h) @ block.attention.qkv.weight.T).split(8, dim=-1)
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = q[..., head] @ k[..., head].mT / 2
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)
        mixed.append(scores.softmax(-1) @ v[..., head])
    h = h + torch.cat(mixed, dim=-1) @ block.attention.out.weight.T
    h = h + F.gelu(block.norm2(h) @ block.feedforward.hidden.weight.T) @ block.feedforward.out.weight.T
    torch.testing.assert_close(model(x), model.norm(h) @ model.embedding.weight.T, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Several threads may compute attention in another way than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [7, 65])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_its_formula_and_so_are_its_gradients(causal: bool, n: int, threads: int) -> None:
    torch.manual_seed(0)
    # as a model has them: [B, n, 3, H, d], the heads behind the tokens
    qkv = torch.randn(2, n, 3, 4, 5, requires_grad=True)
    q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(5)
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    expected = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
    found = attend(q, k, v, causal=causal)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(found)
    theirs = torch.autograd.grad(expected, qkv, upstream)
    torch.testing.assert_close(torch.autograd.grad(found, qkv, upstream), theirs, rtol=1e-4, atol=1e-5)


def test_attention_drops_weights_and_scales_the_rest(threads: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 2, 8, 8).unbind()
    values = torch.eye(8).expand(3, 2, 8, 8)  # so that what comes out are the weights
    whole = attend(q, k, values)
    dropped = attend(q, k, values, dropout=0.25)
    kept = dropped > 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert 0.6 < kept.sum() / (whole > 0).sum() < 0.9


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(0)).unbind()
    table = rotation(20, 6)
    scores = rotate(q.expand(1, 20, 6), table)[0] @ rotate(k.expand(1, 20, 6), table)[0].T
    torch.testing.assert_close(scores[3:, 3:], scores[:-3, :-3])
    # turned as complex numbers by e^(i·t·θ)
    angles = torch.arange(20)[:, None] * 10_000 ** (-torch.tensor([0, 2, 4]) / 6)
    turned = torch.complex(q[0, :3], q[0, 3:]) * torch.polar(torch.ones(20, 3), angles)
    torch.testing.assert_close(rotate(q.expand(1, 20, 6), table)[0], torch.cat([turned.real, turned.imag], dim=1))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (lambda: GPT((64,), 65), 65 * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128),
        (lambda: GPT((64,), 65, activation="swiglu", size="nano"), (65 + 64) * 48 + 3 * (12 * 48**2 + 2 * 48) + 48),
        # as PyTorch's meta device counts what it does not allocate: the 124M of GPT-2
        (lambda: GPT((1024,), 50257, size="small", bias=True), 124_439_808),
        (lambda: GPT((1024,), 50257, size="xl", bias=True), 1_557_611_200),
        (lambda: LSTM((35,), 50), 50 * 200 + 2 * 4 * (2 * 200 * 200 + 2 * 200)),
        (lambda: LSTM((35,), 50, tied=False, layers=1, width=7), 2 * 50 * 7 + 4 * (2 * 7 * 7 + 2 * 7)),
    ],
)
def test_parameters_by_hand(model: Make, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in model().parameters()) == parameters


def test_the_number_4_is_micro() -> None:
    assert choose_size(4) == SIZES["micro"]


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_flops_by_hand(activation: Any) -> None:
    model = GPT((T,), V, layers=2, heads=2, width=24, activation=activation)
    matrices = 2 * 12 * 24**2 + V * 24
    attention = 2 * 2 * T * 24  # a layer, a token: the scores, and the mixture
    objective = Objective(model, cross_entropy)
    assert count_flops(objective, Batch(tokens(3, T), tokens(3, T))) == 3 * T * 3 * (2 * matrices + 2 * attention)


@pytest.mark.parametrize("make", [gpt(positions="rotary"), gpt(), lambda: noncausal((T,), V)])
def test_what_does_not_fit_into_the_context_is_refused(make: Make) -> None:
    model = make()
    assert model.context == T
    _, memory = model.step(tokens(1, T - 2), None)
    with pytest.raises(ValueError, match=f"3 tokens after {T - 2} .* context of {T}"):
        model.step(tokens(1, 3), memory)
    with pytest.raises(ValueError, match="13 tokens after 0"):
        model(tokens(1, T + 1))


@torch.no_grad()
def test_an_lstm_has_no_bound() -> None:
    model = made(lambda: LSTM((T,), V))
    assert model.context is None
    assert model(tokens(1, 3 * T)).shape == (1, 3 * T, V)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GPT((1, 28, 28)), ["needs a text", "[1, 28, 28]", "dataset=tinyshakespeare"]),
        (lambda: LSTM((2,)), ["model=lstm needs a text"]),
        (gpt(width=50, heads=4), ["model.width=50", "model.heads=4", "`model.width=48`"]),
        (gpt(size=0, layers=None), ["model.size=0", "layers=0", "heads=0"]),
        (gpt(width=12, heads=4, positions="rotary"), ["each head has 3", "positions=learned"]),
        (gpt(dropout=1.0), ["model.dropout=1.0"]),
        (lambda: LSTM((T,), V, layers=0), ["model.layers=0"]),
    ],
)
def test_what_cannot_be_is_refused(make: Make, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    says(str(error.value), *words)


@pytest.mark.parametrize("value", ["huge", 1.5])
def test_a_size_that_there_is_not_is_refused_with_the_choices(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"`nano`.*`xl` or a whole number"):
        instantiate.check_part(
            {"_target_": "dlrun.models.gpt.GPT", "size": value}, where="model", runtime=("input_shape",)
        )
