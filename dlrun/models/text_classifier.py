"""A text as the mean of its words' vectors, and a perceptron on it.

The deep averaging network of Iyyer et al. 2015 (Deep Unordered Composition Rivals Syntactic Methods for Text
Classification); without hidden layers, the classifier of fastText (Joulin et al. 2016, arXiv:1607.01759).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.text import check_dropout

__all__ = ["TextClassifier"]

PADDING = 0
"""The token that follows the end of a text."""


class TextClassifier(nn.Module):
    """Averages embeddings: tokens x [N, T] ↦ logits [N, O].

    The token 0 is padding: how much of it follows a text changes nothing. `hidden` are the sizes of hidden layers.
    Raises `ConfigError` for data without tokens, and for sizes out of range.

    >>> import torch
    >>> model = TextClassifier((4,), 2, 10).eval()
    >>> one, other = model(torch.tensor([[3, 1, 0, 0]])), model(torch.tensor([[1, 3, 0, 0, 0, 0]]))
    >>> bool(torch.allclose(one, other)), list(one.shape)
    (True, [1, 2])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        vocabulary: int | None = None,
        *,
        width: int = 64,
        hidden: list[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if vocabulary is None or len(input_shape) != 1:
            raise ConfigError(
                f"model=text_classifier takes texts as tokens; a sample of this data set has the shape "
                f"{list(input_shape)}. Choose dataset=text_classification, or another model."
            )
        sizes = [width] if hidden is None else hidden
        if min([width, *sizes]) < 1:
            raise ConfigError(f"model.width={width} model.hidden={sizes}: expected sizes of 1 or more.")
        check_dropout(dropout)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([width, *sizes]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear([width, *sizes][-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The logits [N, O]."""
        known = (x != PADDING).unsqueeze(-1)
        vectors = self.embedding(x) * known
        # a text without a token has the mean 0
        mean = vectors.sum(-2) / known.sum(-2).clamp(min=1)
        logits: Tensor = self.layers(mean)
        return logits
