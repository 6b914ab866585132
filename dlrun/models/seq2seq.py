"""Encoder and decoder: a transformer from sequences to sequences.

Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762). Positions are sinusoids, embeddings are multiplied
by √width, and the output layer shares the weights of the target embedding (section 3.4).

Changed: the norm comes first in each block, and a last one follows the blocks, so that no warm-up is needed (Xiong et
al. 2020, arXiv:2002.04745); gelu in place of relu, and no biases, as in `gpt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.attention import Attention, KeysValues
from dlrun.models.feedforward import FeedForward
from dlrun.models.text import check_dropout

__all__ = ["Seq2Seq"]

PADDING, BEGIN, END = 0, 1, 2
"""The tokens of `dlrun.tokenizers.pair`."""

MORE = 100
"""Tokens that an answer may have beyond twice those of its source."""

SIDES = ("source", "shifted")


class MaskedAttention(nn.Module):
    """Attention of x [B, T, C] to others [B, S, C], where `seen` [B, S] is true."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, others: Tensor) -> KeysValues:
        """The keys and values, [B, H, S, d] each."""
        k, v = self.kv(others).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, others: KeysValues, seen: Tensor) -> Tensor:
        """The mixed values, [B, T, C]."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, *others, attn_mask=seen[:, None, None], dropout_p=dropout)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y


class EncoderBlock(nn.Module):
    """x ↦ x + attention(norm(x)), then x ↦ x + feedforward(norm(x))."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attention = MaskedAttention(width, heads, dropout=dropout)
        self.feedforward = FeedForward(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """The stream after the block."""
        normed = self.norm1(x)
        x = x + self.drop(self.attention(normed, self.attention.keys_values(normed), seen))
        y: Tensor = x + self.drop(self.feedforward(self.norm2(x)))
        return y


class DecoderBlock(nn.Module):
    """Attention to the words before, then to the source, then the feed-forward network, each after a norm."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = _norm(width), _norm(width), _norm(width)
        self.attention = Attention(width, heads, dropout=dropout)
        self.of_source = MaskedAttention(width, heads, dropout=dropout)
        self.feedforward = FeedForward(width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, source: KeysValues, seen: Tensor, memory: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The stream after the block, and the keys and values of the words so far."""
        mixed, memory = self.attention(self.norm1(x), memory=memory)
        x = x + self.drop(mixed)
        x = x + self.drop(self.of_source(self.norm2(x), source, seen))
        return x + self.drop(self.feedforward(self.norm3(x))), memory


class Encoded(NamedTuple):
    """Of the sources the keys and values for each block, and which tokens are none of the padding, [B, S]."""

    blocks: tuple[KeysValues, ...]
    seen: Tensor


class Seq2Seq(nn.Module):
    """Encoder and decoder: x of `source` [B, S] and `shifted` [B, T] ↦ logits [B, T, V].

    The logits at t are of the target token t, from the source and the tokens 0 … t of `shifted`, which are the targets
    one place later. The token 0 is padding: how much of it follows changes nothing. `shared` uses one embedding for
    both sides, which then need one vocabulary. Raises `ConfigError` for other data, and for sizes out of range.

    >>> model = Seq2Seq({"source": (None,), "shifted": (None,)}, 30, 20, width=32, heads=2, layers=1).eval()
    >>> x = {"source": torch.tensor([[5, 7, 2]]), "shifted": torch.tensor([[1, 9, 4, 6]])}
    >>> model(x).shape, model.generate(x["source"], longest=4).shape[0]
    (torch.Size([1, 4, 30]), 1)
    """

    takes_nests = True

    def __init__(
        self,
        input_shape: Mapping[str, tuple[int | None, ...]],
        outputs: int,
        vocabulary: int | None = None,
        *,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
        tied: bool = True,
        shared: bool = False,
    ) -> None:
        super().__init__()
        vocabulary = _check(input_shape, outputs, vocabulary, shared=shared)
        check_dropout(dropout)
        if min(width, heads, layers) < 1 or width % (2 * heads):
            raise ConfigError(
                f"model.width={width} model.heads={heads} model.layers={layers}: expected at least one of each, and a "
                f"width that is an even multiple of the heads. Type for example model.width={2 * heads * 16}"
            )
        self.embedding = nn.Embedding(outputs, width)
        self.source = self.embedding if shared else nn.Embedding(vocabulary, width)
        self.encoder = nn.ModuleList(EncoderBlock(width, heads, dropout=dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(width, heads, dropout=dropout) for _ in range(layers))
        self.norm_source, self.norm = _norm(width), _norm(width)
        self.head = nn.Linear(width, outputs, bias=False)
        self.drop = nn.Dropout(dropout)
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.xavier_uniform_(p)
        # not a set, whose order is another in each process
        for embedding in dict.fromkeys((self.embedding, self.source)):
            # times √width it has the deviation 1, that of the sinusoids about
            nn.init.normal_(embedding.weight, std=width**-0.5)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """The logits [B, T, V]."""
        return self._decode(self.encode(x["source"]), x["shifted"], None)[0]

    def encode(self, source: Tensor) -> Encoded:
        """What the decoder asks of sources [B, S]."""
        seen = source != PADDING
        stream = self.drop(_place(self.source(source), 0))
        for block in self.encoder:
            stream = block(stream, seen)
        stream = self.norm_source(stream)
        keys_values = tuple(block.of_source.keys_values(stream) for block in self.decoder)  # type: ignore[union-attr,operator]
        return Encoded(keys_values, seen)

    @torch.no_grad()
    def generate(self, source: Tensor, longest: int | None = None) -> Tensor:
        """The likeliest token at each place, int64 [B, T], to the `END` of all; `PADDING` behind an end.

        At most `longest` tokens, which are twice those of the source and 100 unless given.
        """
        longest = 2 * source.shape[1] + MORE if longest is None else longest
        encoded, memory = self.encode(source), None
        last = source.new_full((len(source), 1), BEGIN)
        words, ended = [source.new_zeros(len(source), 0)], source.new_zeros(len(source), 1, dtype=torch.bool)
        for place in range(longest):
            logits, memory = self._decode(encoded, last, memory, place)
            last = logits.argmax(2).masked_fill(ended, PADDING)
            words.append(last)
            ended = ended | (last == END)
            if bool(ended.all()):
                break
        return torch.cat(words, dim=1)

    def _decode(
        self, encoded: Encoded, words: Tensor, memory: tuple[KeysValues, ...] | None, seen: int = 0
    ) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """The logits of `words` after the `seen` ones in `memory`, and the new memory."""
        stream, memories = self.drop(_place(self.embedding(words), seen)), []
        for i, block in enumerate(self.decoder):
            stream, of_block = block(stream, encoded.blocks[i], encoded.seen, memory[i] if memory else None)
            memories.append(of_block)
        logits: Tensor = self.head(self.norm(stream))
        return logits, tuple(memories)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, bias=False)


def _place(embedded: Tensor, start: int) -> Tensor:
    """Embeddings [B, T, C], times √C, and the sinusoids of the places from `start` on."""
    width = embedded.shape[2]
    at = torch.arange(start, start + embedded.shape[1], device=embedded.device, dtype=torch.float32)
    rates = torch.exp(torch.arange(0, width, 2, device=embedded.device) * (-log(10_000.0) / width))
    angles = at[:, None] * rates
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return embedded * sqrt(width) + waves.to(embedded.dtype)


def _check(
    input_shape: Mapping[str, tuple[int | None, ...]], outputs: int, vocabulary: int | None, *, shared: bool
) -> int:
    """The size of the source vocabulary."""
    if vocabulary is None or not isinstance(input_shape, Mapping) or {*input_shape} != {*SIDES}:
        raise ConfigError(
            "model=seq2seq takes pairs of texts, with inputs `source` and `shifted` and a vocabulary. Choose "
            "dataset=text_pairs, or another model."
        )
    if shared and vocabulary != outputs:
        raise ConfigError(
            f"model.shared=true: the sources have {vocabulary} tokens and the targets {outputs}. Type "
            "dataset.shared=true too, for one tokenizer of both."
        )
    return vocabulary
