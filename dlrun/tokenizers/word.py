"""Tokens are words between white space, as in WikiText, and `<eos>` for a line break.

S. Merity et al., Pointer Sentinel Mixture Models, 2016. The most frequent words of the training text
have tokens, all others are `<unk>`. So text is lost: a perplexity is that of the text with its `<unk>`.
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
# cuts as `_split` does, and tells where
_WORD = re.compile(r"\n|\S+")


class Word:
    """Words as tokens: places in `words`, `<unk>` among them."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.size = len(self.words)
        self._places = {word: i for i, word in enumerate(self.words)}
        self._unknown = self._places[UNKNOWN]

    @classmethod
    def fit(cls, portions: Iterable[str], size: int | None = None) -> Word:
        """Make the tokenizer of the `size` most frequent words.

        `<unk>` and `<eos>` are among them; None means all words. Equally frequent words come in the order of their
        letters.
        """
        counts: Counter[str] = Counter()
        for portion in portions:
            counts.update(_split(portion))
        # first, so that a smaller vocabulary is the beginning of a larger one
        special = (UNKNOWN, END)
        ranked = sorted(counts.keys() - special, key=lambda word: (-counts[word], word))
        return cls([*special, *ranked][:size])

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Word:
        """Make the tokenizer again from its `content()`."""
        words = content["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("`words` is no list of texts")
        return cls(words)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`; `<unk>` for an unknown word."""
        words = _split(text)
        try:
            # without a default: several times faster, and most texts have no unknown word
            return list(map(self._places.__getitem__, words))
        except KeyError:
            return [self._places.get(word, self._unknown) for word in words]

    def decode(self, tokens: Sequence[int]) -> str:
        r"""The words, with spaces between; `<eos>` is a line break.

        >>> Word(["<unk>", "<eos>", "a"]).decode([2, 2, 1, 2])
        'a a\na'
        """
        return (
            " ".join(self.words[token] for token in tokens).replace(END, "\n").replace(" \n", "\n").replace("\n ", "\n")
        )

    def content(self) -> dict[str, Any]:
        """The words, for `load`."""
        return {"kind": "word", "words": self.words}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The text in portions that end with a word."""
        return at_gaps(pieces)

    def bytes_of(self, text: str, tokens: int | None = None) -> int | None:
        """The bytes of the first `tokens` words, in UTF-8.

        The white space before them counts. None if a word is outside the vocabulary: then the tokens do not stand for
        the text.
        """
        if not self._places.keys() >= set(_split(text)[:tokens]):
            return None
        return len((text if tokens is None else text[: _end(text, tokens)]).encode())


def _split(text: str) -> list[str]:
    # a line break is a word
    return text.replace("\n", f" {END} ").split()


def _end(text: str, tokens: int) -> int:
    """The end of the first `tokens` words of `text`."""
    return max((found.end() for found in islice(_WORD.finditer(text), tokens)), default=0)
