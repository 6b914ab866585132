"""Tokens are words, as in WikiText: what stands between white space, and `<eos>` for a line break.

S. Merity et al., Pointer Sentinel Mixture Models, 2016. The most frequent words of the training text
have tokens, all others are `<unk>`; so text is lost, and a perplexity is that of the shorter text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from dlrun.tokenizers.portions import at_gaps

__all__ = ["Word"]

UNKNOWN, END = "<unk>", "<eos>"
_WORD = re.compile(r"\n|\S+")


class Word:
    """The words of a vocabulary, each a token: its place there. `<unk>` is among them."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.size = len(self.words)
        self._places = {word: i for i, word in enumerate(self.words)}
        self._unknown = self._places[UNKNOWN]

    @classmethod
    def fit(cls, portions: Iterable[str], size: int | None = None) -> Word:
        """Return the tokenizer of the `size` most frequent words of a text, `<unk>` and `<eos>` among them.

        Of words that are as frequent the first in the order of their letters come first.
        """
        counts: Counter[str] = Counter()
        for portion in portions:
            counts.update(_split(portion))
        special = (UNKNOWN, END)
        ranked = sorted(counts.keys() - special, key=lambda word: (-counts[word], word))
        return cls([*special, *ranked][:size])

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Word:
        """Return the tokenizer whose `content()` is given."""
        return cls(content["words"])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`."""
        words = _split(text)
        try:
            return list(map(self._places.__getitem__, words))
        except KeyError:
            return [self._places.get(word, self._unknown) for word in words]

    def decode(self, tokens: Sequence[int]) -> str:
        r"""Return the words of `tokens`, a space between them, and a line break for `<eos>`.

        >>> Word(["<unk>", "<eos>", "a"]).decode([2, 2, 1, 2])
        'a a\na'
        """
        return (
            " ".join(self.words[token] for token in tokens).replace(END, "\n").replace(" \n", "\n").replace("\n ", "\n")
        )

    def content(self) -> dict[str, Any]:
        """Return what it is made of."""
        return {"kind": "word", "words": self.words}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the text in portions that end with a word."""
        return at_gaps(pieces)

    def bytes_of(self, text: str, tokens: int | None = None) -> int | None:
        """Return how many bytes the first `tokens` words of `text` take in UTF-8, with the white space before them.

        None if one of them is not in the vocabulary: then the tokens do not stand for the text.
        """
        if not self._places.keys() >= set(_split(text)[:tokens]):
            return None
        return len((text if tokens is None else text[: _end(text, tokens)]).encode())


def _split(text: str) -> list[str]:
    return text.replace("\n", f" {END} ").split()


def _end(text: str, tokens: int) -> int:
    """Return where the first `tokens` words of `text` end."""
    return max((found.end() for found in islice(_WORD.finditer(text), tokens)), default=0)
