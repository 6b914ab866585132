"""GPT: a transformer that predicts the next token.

Radford et al. 2019, Language models are unsupervised multitask learners (GPT-2); Vaswani et al. 2017, arXiv:1706.03762.
Each block adds an attention and a feed-forward network to the residual stream, each after a norm. The output layer
shares its weights with the embedding (Press & Wolf 2017, arXiv:1608.05859). Initial weights are GPT-2's: normal with a
standard deviation of 0.02, divided by √(2·layers) in layers that write to the stream. So the first loss is near the
logarithm of the vocabulary.

Changed: no biases, as in nanoGPT; rotary positions, RMSNorm and SwiGLU are choices.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.attention import Attention, KeysValues
from dlrun.models.blocks import Blocks
from dlrun.models.feedforward import Activation, FeedForward
from dlrun.models.gpt_sizes import Name, choose_size
from dlrun.models.norms import Norm, make_norm
from dlrun.models.positions import Rotation, rotation
from dlrun.models.text import check_context, check_dropout, text_shape

__all__ = ["GPT"]

Memory = tuple[KeysValues, ...]
"""The keys and values, block by block."""


class Block(nn.Module):
    """x ↦ x + attention(norm(x)), then x ↦ x + feedforward(norm(x))."""

    def __init__(self, attention: Attention, forward: FeedForward, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.attention = attention
        self.feedforward = forward
        self.dropout = attention.dropout

    def forward(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """The stream after the block."""
        return self.step(x, rotation, None)[0]

    def step(self, x: Tensor, rotation: Rotation | None, memory: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """The stream after the block, and the block's new memory."""
        mixed, memory = self.attention(self.norm1(x), rotation, memory)
        x = x + self._dropout(mixed)
        return x + self._dropout(self.feedforward(self.norm2(x))), memory

    def _dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x


class GPT(nn.Module):
    """Transformer: tokens x [B, T] ↦ logits [B, T, V].

    The logits at t are of the token t+1, from the tokens 0 … t alone. `size` is a name or number of `gpt_sizes`;
    `layers`, `heads` and `width` replace its numbers. The context, the most tokens seen at once, is the data set's
    window. Raises `ConfigError` for data without tokens, and for sizes out of range.

    >>> import torch
    >>> GPT((64,), 65, size="nano")(torch.zeros(2, 64, dtype=torch.int64)).shape
    torch.Size([2, 64, 65])
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        vocabulary: int | None = None,
        *,
        size: Name | int = "micro",
        layers: int | None = None,
        heads: int | None = None,
        width: int | None = None,
        positions: Literal["learned", "rotary"] = "learned",
        norm: Norm = "layer",
        activation: Activation = "gelu",
        dropout: float = 0.0,
        tied: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.context, vocabulary = text_shape(input_shape, vocabulary, model="gpt")
        check_dropout(dropout)
        layers, heads, width = choose_size(size, layers=layers, heads=heads, width=width)
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(self.context, width) if positions == "learned" else None
        self.blocks = Blocks(
            Block(
                Attention(width, heads, dropout=dropout, bias=bias),
                FeedForward(width, activation, bias=bias),
                (make_norm(norm, width, bias=bias), make_norm(norm, width, bias=bias)),
            )
            for _ in range(layers)
        )
        self.norm = make_norm(norm, width, bias=bias)
        # a bias would not fit tied weights, and GPT-2 has none here
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        if positions == "rotary":
            # not in the checkpoint: they follow from the sizes alone
            for name, table in rotation(self.context, width // heads)._asdict().items():
                self.register_buffer(name, table, persistent=False)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, T, V], T at most the context."""
        check_context(0, x.shape[1], self.context)
        stream = self.blocks(*self._embed(x, 0))
        logits: Tensor = self.head(self.norm(stream))
        return logits

    def step(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits [B, t, V] after `memory`, and the new memory.

        Raises `ValueError` if memory and x together exceed the context.
        """
        seen = memory[0][0].shape[2] if memory else 0  # tokens in the memory
        check_context(seen, x.shape[1], self.context)
        # "stream" is the residual stream [B, t, C], to which every block adds
        stream, turned = self._embed(x, seen)
        memories = []
        for i, block in enumerate(self.blocks):
            stream, block_memory = block.step(stream, turned, memory[i] if memory else None)  # type: ignore[operator]
            memories.append(block_memory)
        logits: Tensor = self.head(self.norm(stream))
        return logits, tuple(memories)

    def _embed(self, x: Tensor, seen: int) -> tuple[Tensor, Rotation | None]:
        """The stream before the blocks, and its positions' rotation."""
        stream: Tensor = self.embedding(x)
        turned = None
        if self.positions is None:
            turned = Rotation(self.cosine, self.sine).at(seen, x.shape[1])
        else:
            stream = stream + self.positions.weight[seen : seen + x.shape[1]]
        return (F.dropout(stream, self.dropout) if self.dropout and self.training else stream), turned

    def _initialise(self) -> None:
        for name, p in self.named_parameters():
            # the matrices `out` of attention and feed-forward write to the stream, twice a block
            if p.ndim >= 2:
                nn.init.normal_(p, std=0.02 / sqrt(2 * len(self.blocks)) if name.endswith("out.weight") else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
