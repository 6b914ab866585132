"""Text from models: the draw against numpy and the known distribution, the cache against the whole window."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from dlrun.engine.generation import (
    Cacheless,
    Sampling,
    as_language_model,
    decode_stream,
    default_prompt,
    draw,
    generate,
    probabilities,
    window_start,
)
from dlrun.errors import RunError
from dlrun.tokenizers import by_name
from dlrun.types import Tokenizer
from tests.models.test_language_models import LEARNED, T, V, made, menu, tokens

LOGITS = [2.0, 1.0, 0.0, -1.0, 1.0, -30.0]


class Known(nn.Module):
    """A model whose next token has the same distribution everywhere; `asked` is what it was shown."""

    context = None

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.asked: list[int] = []

    def step(self, x: Tensor, memory: None) -> tuple[Tensor, None]:
        self.asked.append(x.shape[1])
        return self.logits.expand(*x.shape, -1), None


def texts(model: nn.Module, prompt: Tensor, n: int, how: Sampling | None = None, *, cache: bool = True) -> Tensor:
    return torch.stack(list(generate(model, prompt, n, how, cache=cache)), dim=1)


def softmax(logits: Iterable[float]) -> np.ndarray:
    shares = np.exp(np.array(logits) - max(logits))
    return np.asarray(shares / shares.sum())


def cut(shares: np.ndarray, top_k: int | None, top_p: float) -> np.ndarray:
    """Keep tokens one by one, the most probable first, until there are `top_k` or their share is `top_p`."""
    kept, order = np.zeros_like(shares), np.argsort(-shares, kind="stable")[:top_k]
    total = shares[order].sum()
    for token in order:
        kept[token] = shares[token]
        if kept.sum() / total >= top_p:
            break
    return kept / kept.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_the_model_expects_them(temperature: float) -> None:
    n = 20_000
    drawn = draw(torch.tensor([LOGITS]).expand(n, -1), Sampling(temperature), position=7)
    expected = n * softmax([value / temperature for value in LOGITS])
    found = np.bincount(drawn.numpy(), minlength=len(LOGITS))
    often = expected > 5
    assert found[expected < 0.01].sum() == 0
    assert chisquare(found[often], expected[often] * found[often].sum() / expected[often].sum()).pvalue > 0.001


def test_the_tokens_of_one_text_are_drawn_independently() -> None:
    drawn = texts(Known([0.0, 0.0]), torch.zeros(1, 1, dtype=torch.long), 4001)[0].numpy()
    assert chisquare(np.bincount(2 * drawn[:-1] + drawn[1:])).pvalue > 0.001


@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 1e-9])
def test_what_is_cut_is_what_numpy_cuts(top_k: int | None, top_p: float) -> None:
    rows = torch.tensor([LOGITS, LOGITS[::-1], [0.0] * 6], dtype=torch.float64)
    found = probabilities(rows, Sampling(0.7, top_k, top_p))
    for logits, shares in zip(rows.tolist(), found, strict=True):
        expected = cut(softmax([value / 0.7 for value in logits]), top_k, top_p)
        np.testing.assert_allclose(shares.numpy(), expected, atol=1e-12)


def test_a_temperature_of_zero_is_the_most_probable_token() -> None:
    assert draw(torch.tensor([LOGITS, LOGITS[::-1]]), Sampling(0), 0).tolist() == [0, 5]
    assert draw(torch.tensor([LOGITS]), Sampling(1e-300), 0).tolist() == [0]


def test_impossible_tokens_are_never_drawn_and_numbers_that_are_none_are_an_error() -> None:
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(500, -1)
    assert {*draw(impossible, Sampling(), 0).tolist()} == {1}
    with pytest.raises(RunError, match="not finite"):
        draw(torch.tensor([[torch.nan, 0.0]]), Sampling(), 0)


@pytest.mark.parametrize("make", [*LEARNED.values(), *menu().values()], ids=[*LEARNED, *menu()])
def test_the_cache_changes_no_token(make) -> None:  # type: ignore[no-untyped-def]
    model, prompt = made(make), tokens(2, 3)
    cached = texts(model, prompt, 3 * T)
    assert torch.equal(cached, texts(model, prompt, 3 * T, cache=False))
    assert len({*cached.flatten().tolist()}) > 5


def test_a_row_is_the_text_of_its_own_seed() -> None:
    model = made(LEARNED["lstm"])
    rows = texts(model, tokens(1, 4).expand(3, -1), 20, Sampling(seed=5))
    for row in range(3):
        assert torch.equal(rows[row], texts(model, tokens(1, 4), 20, Sampling(seed=5 + row))[0])
    assert not torch.equal(rows[0], rows[1])


def test_a_text_goes_on_as_if_it_had_never_stopped() -> None:
    model, prompt = made(LEARNED["gpt learned layer gelu"]), tokens(1, 2 * T)
    whole = texts(model, prompt, 2 * T)
    assert torch.equal(whole[:, T:], texts(model, torch.cat([prompt, whole[:, :T]], dim=1), T))


def test_the_window_is_never_longer_than_the_context_and_hops_by_half_of_it() -> None:
    for context in (1, 2, 5, 8):
        starts = [window_start(length, context) for length in range(1, 50)]
        for length, start in enumerate(starts, 1):
            assert min(length, context - context // 2) <= length - start <= context
        assert {b - a for a, b in itertools.pairwise(starts)} <= {0, max(1, context // 2)}


def test_the_model_is_given_each_token_once_and_is_left_as_it_was() -> None:
    model = Known(LOGITS)
    texts(model, tokens(1, 4), 5)
    assert model.asked == [4, 1, 1, 1, 1]
    trained = made(LEARNED["gpt learned layer gelu"]).train()
    state = torch.random.get_rng_state()
    for _ in generate(trained, tokens(1, 4), 2):
        assert trained.training
        assert torch.is_grad_enabled()
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_model_without_steps_is_asked_about_whole_windows() -> None:
    shown: list[int] = []

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.shape[1])
            return nn.functional.one_hot((x + 1) % V, V).float() * 100

    model = as_language_model(Plain().eval(), 4)
    assert isinstance(model, Cacheless)
    assert not model.training
    assert texts(model, torch.tensor([[3]]), 8)[0].tolist() == [*range(4, 12)]
    assert shown == [1, 2, 3, 4, 3, 4, 3, 4]


TEXT = "Zwölf Boxkämpfer jagen Viktor – 東京 🎉🎉 quer\n\nüber den `Deich` …"


@pytest.mark.parametrize("kind", by_name.NAMES)
def test_what_is_spelled_is_the_text_in_whole_characters(kind: str) -> None:
    tokenizer: Tokenizer = by_name.fit(kind, [TEXT], vocabulary_size=280 if kind == "bpe" else None)
    encoded = tokenizer.encode(TEXT)
    for split in (1, 5, 9):
        prompt, rest = encoded[:split], encoded[split:]
        pieces = list(decode_stream(tokenizer, prompt, rest))
        assert tokenizer.decode(prompt) + "".join(pieces) == tokenizer.decode(encoded)
        assert len(pieces) > 3
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_bytes_that_are_no_character_are_shown_as_that() -> None:
    tokenizer = by_name.fit("byte", [])
    broken = [*"aé".encode()[:2], *b"bc", 0xFF, 0xFE, *"é".encode()[:1]]
    pieces = list(decode_stream(tokenizer, [10], broken))
    assert "".join(pieces) == bytes(broken).decode(errors="replace")


@pytest.mark.parametrize("kind", by_name.NAMES)
def test_a_text_without_a_prompt_begins_on_a_new_line(kind: str) -> None:
    tokenizer = by_name.fit(kind, ["one\ntwo three"], vocabulary_size=280 if kind == "bpe" else None)
    assert default_prompt(tokenizer) == tokenizer.encode("\n")
    assert default_prompt(by_name.fit("character", ["no lines"])) == [0]
