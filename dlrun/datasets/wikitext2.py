"""WikiText-2: good and featured articles of Wikipedia, 2,088,628 words to train on, 33,278 distinct.

S. Merity et al., Pointer Sentinel Mixture Models, 2016. Rare words are `<unk>` in the files already; a line
break is the word `<eos>`.
"""

from __future__ import annotations

from dlrun.datasets.files import files
from dlrun.datasets.files.locate import locate
from dlrun.datasets.files.sources import WIKITEXT2
from dlrun.datasets.language.from_text import from_text
from dlrun.types import Data, Tokenizer

__all__ = ["wikitext2"]


def wikitext2(
    *,
    path: str | None = None,
    tokenizer: str | Tokenizer = "word",
    vocabulary_size: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    train_size: int | None = None,
) -> Data:
    """The articles, in their official splits.

    The arguments are those of `from_text`. Published perplexities are of words, with the whole vocabulary; bits per
    byte compare tokenizers. Raises `DataError` if files are missing or altered.
    """
    located = locate(WIKITEXT2, path)
    train, validation, test = (files.read(located[file], file).decode() for file in WIKITEXT2.files)
    return from_text(
        "wikitext2",
        train,
        validation,
        test,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        context=context,
        stride=stride,
        streams=streams,
        train_size=train_size,
    )
