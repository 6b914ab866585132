"""Long short-term memory as a language model.

Hochreiter & Schmidhuber 1997, Neural Computation 9, with the forget gates of Gers et al. 2000. Its state has a fixed
size, so its context has no bound. The default is the small model of Zaremba et al. 2014 (arXiv:1409.2329): two layers
of 200 units, with dropout between layers and none between time steps.

Changed: the output layer shares its weights with the embedding (Press & Wolf 2017, arXiv:1608.05859), and the forget
gates begin open, with a bias of 1 (Jozefowicz et al. 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.text import check_dropout, text_shape

__all__ = ["LSTM"]

State = tuple[Tensor, Tensor]
"""The last outputs of the layers, and their cells, each [layers, B, C]."""


class LSTM(nn.Module):
    """LSTM: tokens x [B, T] ↦ logits [B, T, V].

    The logits at t are of the token t+1, from the tokens 0 … t alone. Raises `ConfigError` for data without tokens,
    and for sizes out of range.

    >>> LSTM((64,), 65)(torch.zeros(2, 64, dtype=torch.int64)).shape
    torch.Size([2, 64, 65])
    """

    context: None = None  # no bound

    def __init__(
        self,
        input_shape: tuple[int, ...],
        vocabulary: int | None = None,
        *,
        layers: int = 2,
        width: int = 200,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        _, vocabulary = text_shape(input_shape, vocabulary, model="lstm")
        check_dropout(dropout)
        if layers < 1 or width < 1:
            raise ConfigError(
                f"model.layers={layers} model.width={width}: expected 1 or more for both, as in `model.layers=2"
                f" model.width=200`."
            )
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, width)
        # PyTorch's dropout acts between layers; for a single layer it would warn
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, T, V] of the next tokens."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: State | None) -> tuple[Tensor, State]:
        """Logits [B, t, V] after `memory`, and the new state."""
        # few processors have a bfloat16 kernel of it
        with torch.autocast("cpu", enabled=False):
            hidden, memory = self.lstm(self._dropout(self.embedding(x)), memory)
        logits: Tensor = self.head(self._dropout(hidden))
        return logits, memory

    def _dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x

    def _initialise(self) -> None:
        with torch.no_grad():
            for matrix in (self.head.weight, self.embedding.weight):
                matrix.uniform_(-0.1, 0.1)  # as in Zaremba et al.
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias"):
                    bias.zero_()
                # PyTorch adds two biases; one of them opens the forget gates
                if name.startswith("bias_ih"):
                    _, forget, _, _ = bias.chunk(4)
                    forget.fill_(1.0)
