"""Long short-term memory as a model of text (Hochreiter & Schmidhuber 1997, Neural Computation 9; with the forget
gates of Gers et al. 2000).

What it has read lies in a state of fixed size, so that it has no bound on how far it can look back, and no way
to look back either. The default is the small model of Zaremba et al. 2014 (arXiv:1409.2329): two layers of
200 units, dropout on what goes up from layer to layer, none on what goes on in time. Changed: the output layer
shares its weights with the embedding (Press & Wolf 2017, arXiv:1608.05859), and the forget gates begin open, with
a bias of 1 (Jozefowicz et al. 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.text import check_dropout, text_shape

__all__ = ["LSTM"]

State = tuple[Tensor, Tensor]
"""What the layers put out last and what their cells hold, each [layers, B, C]."""


class LSTM(nn.Module):
    """x [B, T] ↦ logits [B, T, V], those at t of the token t+1, from the tokens 0 … t alone.

    >>> LSTM((64,), 65)(torch.zeros(2, 64, dtype=torch.int64)).shape
    torch.Size([2, 64, 65])
    """

    context: None = None

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
                f"model.layers={layers} and model.width={width} must both be 1 or more, as in `model.layers=2"
                f" model.width=200`."
            )
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, width)
        # PyTorch's own dropout acts between the layers: of one layer it warns that there is nothing between
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, T, V] of the tokens that follow."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: State | None) -> tuple[Tensor, State]:
        """Return the logits of the tokens that follow x [B, t], which goes on behind `memory`, and the state then."""
        with torch.autocast("cpu", enabled=False):  # few processors have a kernel of it in bfloat16
            hidden, memory = self.lstm(self._dropout(self.embedding(x)), memory)
        logits: Tensor = self.head(self._dropout(hidden))
        return logits, memory

    def _dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout and self.training else x

    def _initialise(self) -> None:
        with torch.no_grad():
            for matrix in (self.head.weight, self.embedding.weight):
                matrix.uniform_(-0.1, 0.1)
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias"):
                    bias.zero_()
                if name.startswith("bias_ih"):
                    _, forget, _, _ = bias.chunk(4)
                    forget.fill_(1.0)
