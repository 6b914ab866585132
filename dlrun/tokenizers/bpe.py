"""Byte-pair encoding: tokens are frequent strings of bytes, found in the training text.

R. Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016. It merges bytes, within words,
numbers and the rest, as in A. Radford et al., Language Models are Unsupervised Multitask Learners, 2019. Any text can
be encoded and comes back as it was. Hugging Face's `tokenizers` does the work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dlrun.errors import UserError
from dlrun.tokenizers.portions import at_gaps

__all__ = ["Bpe"]

LEAST = 256
"""The smallest vocabulary: the bytes."""

DEFAULT = 4096
"""The size of the vocabulary if none is given."""

_PIECE = 1 << 14  # characters that one core encodes at a time

_SWITCH = "TOKENIZERS_PARALLELISM"  # the library's own variable


class Bpe:
    """Byte-pair encoding by `model`, a parsed `tokenizer.json` of Hugging Face."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = dict(model)
        self._tokenizer = _library().Tokenizer.from_str(json.dumps(model))
        self.size: int = self._tokenizer.get_vocab_size()

    @classmethod
    def fit(cls, portions: Iterable[str], size: int | None = None) -> Bpe:
        """Train a tokenizer of `size` tokens (None: 4096).

        It has fewer if there is no more to merge.
        """
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        # without the prefix: a text comes back as it was
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        # all bytes, so that any text can be encoded
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(
            vocab_size=DEFAULT if size is None else size, initial_alphabet=alphabet, show_progress=False
        )
        with _in_parallel():
            tokenizer.train_from_iterator(portions, trainer)
        return cls(json.loads(tokenizer.to_str()))

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Bpe:
        """Make the tokenizer again from its `content()`."""
        return cls(content["model"])

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, a long one on all cores."""
        # cut at gaps, the tokens of the pieces are those of the whole, and cores share the work
        pieces = list(at_gaps([text], _PIECE))
        if len(pieces) < 2:
            return self._encode_pieces(pieces)
        with _in_parallel():
            return self._encode_pieces(pieces)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; `�` for bytes of no character."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text

    def content(self) -> dict[str, Any]:
        """The model, for `load`."""
        return {"kind": "bpe", "model": self._model}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The text in portions that end with a word."""
        return at_gaps(pieces)

    def token_bytes(self) -> list[int]:
        """The bytes of each token."""
        return [len(self._tokenizer.id_to_token(token)) for token in range(self.size)]

    def bytes_of(self, text: str, tokens: int | None = None) -> int:
        """The bytes of the first `tokens` tokens, in UTF-8."""
        if tokens is None:
            return len(text.encode())
        # the library writes a token with one printable character for each of its bytes
        return sum(len(self._tokenizer.id_to_token(token)) for token in self.encode(text)[:tokens])

    def _encode_pieces(self, pieces: list[str]) -> list[int]:
        # the fast form leaves out the place of each token in the text
        return [token for piece in self._tokenizer.encode_batch_fast(pieces) for token in piece.ids]


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            "dataset.tokenizer=bpe needs the package `tokenizers`: pip install tokenizers. "
            "Without it there are dataset.tokenizer=character, byte and word."
        ) from None
    return tokenizers


@contextmanager
def _in_parallel() -> Iterator[None]:
    """Let the library use all cores here, and one afterwards.

    If the user has set its variable, that holds. Its threads do not survive a fork: it would warn at each one, and a
    worker could wait for ever.
    """
    given = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = given or "true"
    try:
        yield
    finally:
        os.environ[_SWITCH] = given or "false"
