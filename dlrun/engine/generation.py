"""Text from a language model, one token after the other.

The draw of a token is keyed by its place in the text: row r of a batch with the seed s is the text of the
seed s + r alone, with the cache or without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from dlrun.engine.evaluation import evaluating
from dlrun.errors import RunError, UserError
from dlrun.randomness import SAMPLING, key
from dlrun.types import LanguageModel, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """Draws from softmax(logits / temperature).

    A temperature of 0 takes the most probable token. `top_k` keeps the k most probable tokens. Of these `top_p` keeps
    the fewest, the most probable first, with a share of at least p (nucleus sampling, Holtzman et al. 2020,
    arXiv:1904.09751).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0


class Cacheless(nn.Module):
    """Computes the whole window anew for each token."""

    def __init__(self, model: nn.Module, context: int | None) -> None:
        super().__init__()
        self.model = model
        self.context = context
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits of `x` after `memory`, and all tokens."""
        tokens = x if memory is None else torch.cat([memory, x], dim=1)
        return self(tokens)[:, -x.shape[1] :], tokens


def as_language_model(model: nn.Module, context: int) -> nn.Module:
    """Make `model` a `LanguageModel`, if it is none.

    Without a `step` of its own it computes windows of `context` tokens.
    """
    return model if hasattr(model, "step") else Cacheless(model, getattr(model, "context", context))


def generate(
    model: nn.Module, prompt: Tensor, tokens: int, how: Sampling | None = None, *, cache: bool = True
) -> Iterator[Tensor]:
    """Yield `tokens` tokens after `prompt`, one by one.

    The prompt is int64 [B, t] with t ≥ 1; each token is int64 [B], on the CPU. In a text longer than the context of
    `model` (a `LanguageModel`), its window hops on by half a context: the beginning follows from the length of the text
    alone. With the `cache` the model gets new tokens only, without it the whole window each time; the text is the same.
    Raises `RunError` for logits that are not finite.
    """
    how = how or Sampling()
    context = cast("LanguageModel", model).context
    speaker = cast("LanguageModel", model if cache else Cacheless(model, context))
    text = prompt.to(next(chain(model.parameters(), model.buffers()), prompt).device)
    memory, begin, seen = None, 0, 0
    for position in range(text.shape[1], text.shape[1] + tokens):
        if window_start(position, context) != begin:
            begin = seen = window_start(position, context)
            memory = None
        # within the loop: between two tokens the model is as the caller left it
        with evaluating(model) if model.training else torch.no_grad():
            logits, memory = speaker.step(text[:, seen:], memory)
        seen = position
        drawn = draw(logits[:, -1], how, position)
        text = torch.cat([text, drawn[:, None].to(text.device)], dim=1)
        yield drawn


def window_start(length: int, context: int | None) -> int:
    """The window's beginning, a multiple of half the context.

    >>> [window_start(length, 4) for length in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    if context is None or length <= context:
        return 0
    hop = max(1, context // 2)
    return -((context - length) // hop) * hop


def draw(logits: Tensor, how: Sampling, position: int) -> Tensor:
    """Draw a token for each row of logits [B, V].

    The tokens are int64 [B], on the CPU. Raises `RunError` for logits that are not finite.
    """
    # double on the host: MPS has none
    wide = logits.detach().float().cpu().double()
    if not bool(wide.amax(1).isfinite().all()):
        raise RunError("The model's logits are not finite: it gives no probabilities to draw a token from.")
    if how.temperature == 0:
        return wide.argmax(1)
    cumulated = probabilities(wide, how).cumsum(1)
    uniform = torch.tensor([_uniform(how.seed + row, position) for row in range(len(wide))], dtype=torch.float64)
    # the inverse of the distribution function: the first token with a greater cumulated probability, so that one of
    # probability 0 is never drawn
    return torch.searchsorted(cumulated / cumulated[:, -1:], uniform[:, None], right=True)[:, 0]


def probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """softmax(logits / temperature) [B, V], cut by `top_k` and `top_p`."""
    # without the maximum a low temperature could overflow
    shares = ((logits - logits.amax(1, keepdim=True)) / how.temperature).softmax(1)
    if how.top_k is None and how.top_p >= 1:
        return shares
    ordered, tokens = shares.sort(dim=1, descending=True, stable=True)
    if how.top_k is not None:
        ordered[:, how.top_k :] = 0
    ordered /= ordered.sum(1, keepdim=True)
    # a token stays if those before it do not make up the share yet: the first always does
    ordered[ordered.cumsum(1) - ordered >= how.top_p] = 0
    return torch.zeros_like(shares).scatter(1, tokens, ordered / ordered.sum(1, keepdim=True))


def _uniform(seed: int, position: int) -> float:
    # in [0, 1), of the 53 bits of a float64
    return (key(seed, SAMPLING, position) >> 10) / (1 << 53)


BROKEN = "\N{REPLACEMENT CHARACTER}"
"""Shown by a decoder for bytes that are no character, or not yet."""


def decode_stream(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of `tokens` after `prompt`, by complete characters."""
    # a character may be made of the bytes of several tokens, and a word is joined to the text before it: so the text
    # is decoded from one token back, and its new part is yielded
    window = list(prompt[-1:])
    shown = len(tokenizer.decode(window))
    now = ""
    for token in tokens:
        window.append(token)
        now = tokenizer.decode(window)
        whole = now.removesuffix(BROKEN)  # the last character may still become one
        if len(whole) > shown:
            yield whole[shown:]
            shown = len(whole)
        if whole == now:
            window = window[-1:]
            shown, now = len(tokenizer.decode(window)), ""
    if now[shown:]:
        yield now[shown:]


def default_prompt(tokenizer: Tokenizer) -> list[int]:
    """The tokens of a new line, else token 0."""
    try:
        return list(tokenizer.encode("\n")) or [0]
    except UserError:  # a text of one line: its tokenizer knows no new line
        return [0]
