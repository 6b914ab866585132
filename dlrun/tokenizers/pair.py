"""Two tokenizers as one: of the source texts and of the target texts of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from dlrun.types import Tokenizer

PADDING, BEGIN, END = 0, 1, 2
"""The tokens behind a text, before the first word of a target, and of the end of any text."""

SPECIAL = 3
"""So many; token k of a tokenizer is k + 3."""


class PairTokenizer:
    """`encode` is of source texts, `decode` of target texts; `size` is that of the targets.

    >>> from dlrun.tokenizers.character import Character
    >>> pair = PairTokenizer(Character("ab"), Character("cd"))
    >>> pair.encode("ba"), pair.encode_target("dc"), pair.decode([4, 3, 2, 4])
    ([4, 3, 2], [4, 3, 2], 'dc')
    """

    def __init__(self, source: Tokenizer, target: Tokenizer) -> None:
        self.source, self.target = source, target
        self.size, self.source_size = target.size + SPECIAL, source.size + SPECIAL

    def encode(self, text: str) -> list[int]:
        """The tokens of a source text, with its end."""
        return [*(token + SPECIAL for token in self.source.encode(text)), END]

    def encode_target(self, text: str) -> list[int]:
        """The tokens of a target text, with its end."""
        return [*(token + SPECIAL for token in self.target.encode(text)), END]

    def decode(self, tokens: Sequence[int]) -> str:
        """The target text up to its end."""
        return self.target.decode(_own(tokens))

    def decode_source(self, tokens: Sequence[int]) -> str:
        """The source text up to its end."""
        return self.source.decode(_own(tokens))

    def content(self) -> dict[str, Any]:
        """The contents of both."""
        return {"source": self.source.content(), "target": self.target.content()}


def _own(tokens: Sequence[int]) -> list[int]:
    """A tokenizer's own tokens, up to the end."""
    return [t - SPECIAL for t in takewhile(lambda t: t != END, tokens) if t >= SPECIAL]
