"""What pairs of texts hold, in lines: vocabularies, lengths, unknown words, the first pair."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dlrun.datasets.language.pairs.split import PairSplit, Ragged
from dlrun.tokenizers.pair import SPECIAL, PairTokenizer
from dlrun.tokenizers.word import UNKNOWN, Word
from dlrun.types import Data, Split, Tokenizer


def is_of_pairs(data: Data) -> bool:
    """Are the samples pairs of texts?"""
    return isinstance(data.train, PairSplit) and isinstance(data.tokenizer, PairTokenizer)


def rows(data: Data) -> Iterator[tuple[str, str]]:
    """Names and texts of the lines."""
    pair, train = data.tokenizer, data.train
    assert isinstance(pair, PairTokenizer)
    assert isinstance(train, PairSplit)
    yield "inputs", f"pairs of texts as tokens, with {SPECIAL} for the padding, the beginning and the end"
    for side, size in (("source", pair.source_size), ("target", pair.size)):
        tokens: Ragged = getattr(train, side)
        lengths = tokens.lengths
        longest = int(lengths.max())
        yield (
            side,
            f"vocabulary {size:,}; {int(lengths.min())} to {longest} tokens in training, "
            f"{float(lengths.double().mean()):.3g} on average",
        )
        if unknown := _unknown(getattr(pair, side), data, side):
            yield "unknown", unknown
    first = [[int(token) for token in getattr(train, side).rows(torch.tensor([0]))[0][0]] for side in SIDES]
    source = PairTokenizer(pair.source, pair.source).decode(first[0])
    yield "begins", f"{source[:100]!r} → {pair.decode(first[1])[:100]!r}"


SIDES = ("source", "target")


def _unknown(tokenizer: Tokenizer, data: Data, side: str) -> str:
    """The share of words that the vocabulary lacks, in each split."""
    if not isinstance(tokenizer, Word):
        return ""
    token, found = tokenizer.words.index(UNKNOWN) + SPECIAL, []
    splits: dict[str, Split | None] = {"training": data.train, "validation": data.validation, "test": data.test}
    for name, split in splits.items():
        if isinstance(split, PairSplit):
            values: torch.Tensor = getattr(split, side).values
            if count := int((values == token).sum()):
                found.append(f"{count:,} of {len(values):,} {side} tokens of {name}")
    return ", ".join(found)
