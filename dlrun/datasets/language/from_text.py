"""A text as a data set: cut by position, tokenised, in windows of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.language.corpus import Corpus, Passage, StringText, cut_by_position
from dlrun.datasets.language.encoding import Tokens
from dlrun.datasets.language.passage_keys import passage_keys, token_keys
from dlrun.datasets.language.token_cache import tokenizer_of, tokens_of
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.datasets.tensors import fingerprint as hashing
from dlrun.datasets.tensors.checks import to_tensor
from dlrun.errors import ConfigError, DataError
from dlrun.terminal.format import counted
from dlrun.tokenizers import by_name
from dlrun.tokenizers.description import cache_key
from dlrun.types import Data, Spec, Tokenizer

__all__ = ["from_text"]


def from_text(
    name: str,
    train: str | Corpus,
    validation: str | Corpus | None = None,
    test: str | Corpus | None = None,
    *,
    tokenizer: str | Tokenizer = "character",
    vocabulary_size: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Data:
    """Make a data set of a text, in windows of `context` tokens.

    A model predicts each token from those before it in its window.

    Splits: without a `validation` (or `test`) text the training text is cut by position. Its last `test_size`
    characters (below 1: that fraction) are for the test, the `validation_size` before them for validation.

    `tokenizer` is "character", "byte", "word" or "bpe", or an object of your own (`dlrun.types.Tokenizer`). A
    vocabulary of words or pairs has `vocabulary_size` tokens and is of the training split alone. An alphabet is of
    training and validation; if the test has further characters, they share a token. `train_size` keeps the first tokens
    for training and leaves the tokenizer as it is, so that runs on more and less text can be compared. `stride` and
    `streams` are those of `from_tokens`. The cache keeps the tokens of a long text.

    Raises `DataError` for a text that is too short, `ConfigError` for sizes and names.

    >>> data = from_text("mine", "to be or not to be " * 10, context=8, validation_size=0.1)
    >>> len(data.train), data.spec.vocabulary, data.tokenizer.decode(data.train.tokens[:8].tolist())
    (22, 7, 'to be or')
    """
    passages = _passages(name, train, validation, test, validation_size=validation_size, test_size=test_size)
    if isinstance(tokenizer, str):
        splits = (passages.get(split) for split in ("validation", "test"))
        tokenizer = tokenizer_of(tokenizer, passages["train"], *splits, vocabulary_size=vocabulary_size)
    elif missing := [name for name in ("size", "encode", "decode", "content") if not hasattr(tokenizer, name)]:
        raise ConfigError(
            f"dataset.tokenizer={tokenizer}: expected {', '.join(by_name.NAMES)}, or an object of a class of yours; "
            f"this one has no `{missing[0]}`."
        )
    elif vocabulary_size is not None:
        raise ConfigError(f"vocabulary_size={vocabulary_size}: the tokenizer that is given has its own size. Leave it.")
    tokens = {
        split: tokens_of(passage, tokenizer, most=train_size if split == "train" else None)
        for split, passage in passages.items()
    }
    # checked after the encoding: only now the number of tokens is known
    if train_size is not None and not 1 <= train_size <= len(tokens["train"].values):
        # of all tokens: the encoding above may have stopped at `train_size`
        most = len(tokens_of(passages["train"], tokenizer).values)
        raise ConfigError(f"dataset.train_size={train_size}: expected 1 to {most}, or null for all of the tokens.")
    keys = [split + " " + passage.key for split, passage in passages.items()]
    # of the text, not of its tokens: they are the same samples for every tokenizer
    samples = {split: hashing.fingerprint(passage.key) for split, passage in passages.items()}
    if train_size is not None:  # it counts tokens
        samples["train"] = hashing.fingerprint(passages["train"].key, cache_key(tokenizer), str(train_size))
    data = from_tokens(
        name,
        *(tokens.get(split) for split in ("train", "validation", "test")),  # type: ignore[arg-type]
        tokenizer=tokenizer,
        context=context,
        stride=stride,
        streams=streams,
        content=hashing.fingerprint(*keys, cache_key(tokenizer), str(train_size)),
        notes={"characters": sum(map(len, passages.values()))} | dict(notes or {}),
    )
    if train_size is not None and (size := tokens["train"].bytes):
        # no character has less than a byte; those of the first token are not counted
        passages["train"] = passages["train"].beginning(
            size + len(tokenizer.decode(tokens["train"].values[:1].tolist()))
        )
    return replace(
        data,
        split_fingerprints=samples,
        sample_keys={split: passage_keys(passage) for split, passage in passages.items()},
    )


def from_tokens(
    name: str,
    train: Tensor | Tokens,
    validation: Tensor | Tokens | None = None,
    test: Tensor | Tokens | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    vocabulary: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    content: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Data:
    """Make a data set of tokens [N], integers below `vocabulary`.

    The default of `vocabulary` is the tokenizer's size, else the largest token + 1. Windows of `context` tokens lie
    side by side; each token but a split's first is predicted once. With a `stride` below `context` they overlap and
    predict their last `stride` tokens, each from at least context - stride others. With `streams` evaluation goes
    along that many long rows instead, and the model keeps its memory.

    `content` is a hash of the tokens, computed if not given. The fingerprint does not depend on the windows:
    perplexities of the same tokens can be compared. Raises `DataError` for splits shorter than a window and for tokens
    out of range, `ConfigError` for lengths that make no windows.
    """
    given = {"train": train, "validation": validation, "test": test}
    tokens = {
        split: values if isinstance(values, Tokens) else Tokens(to_tensor(values, f"The {split} tokens of `{name}`"))
        for split, values in given.items()
        if values is not None
    }
    size = tokenizer.size if tokenizer else vocabulary or 1 + max(int(some.values.max()) for some in tokens.values())
    if size == 1:
        raise DataError(
            f"The text of `{name}` has a single symbol: there is nothing to predict. Give another text, or another "
            "dataset.tokenizer, such as byte."
        )
    # with a hash of the caller's the tokens come from a tokenizer, and are not read again
    samples: dict[str, str | Tensor] = {split: f"{split} of {content}" for split in tokens}
    sample_keys = {}
    if content is None:
        samples |= {split: some.values for split, some in tokens.items()}
        sample_keys = {split: token_keys(some.values) for split, some in tokens.items()}
        content = hashing.fingerprint(*(some.values for some in tokens.values()))
        _check_range(name, tokens, size)
    token_bytes = _token_bytes(tokenizer)
    splits = {
        split: _split(name, split, some, context=context, stride=stride, streams=streams, token_bytes=token_bytes)
        for split, some in tokens.items()
    }
    counts = {f"{split}_tokens": len(some.values) for split, some in tokens.items()}
    return Data(
        name=name,
        spec=Spec("language", (context,), outputs=size, vocabulary=size),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=hashing.fingerprint(name, content),
        tokenizer=tokenizer,
        split_fingerprints={split: hashing.fingerprint(each) for split, each in samples.items()},
        sample_keys=sample_keys,
        notes={"vocabulary": size} | counts | dict(notes or {}),
    )


def _passages(
    name: str,
    train: str | Corpus,
    validation: str | Corpus | None,
    test: str | Corpus | None,
    *,
    validation_size: int | float,
    test_size: int | float,
) -> dict[str, Passage]:
    own = {"validation": validation, "test": test}
    for split, size in (("validation", validation_size), ("test", test_size)):
        if own[split] is not None and size:
            raise ConfigError(f"dataset.{split}_size={size}: the data set `{name}` has its own {split} split. Give 0.")
    text = _text(name, train)
    if not len(text):
        raise DataError(f"The text of `{name}` is empty.")
    cut = cut_by_position(text, validation_size=validation_size, test_size=test_size)
    return cut | {split: Passage.whole(_text(name, text)) for split, text in own.items() if text is not None}


def _text(name: str, text: str | Corpus) -> Corpus:
    if not isinstance(text, str):
        if not hasattr(text, "read") or not hasattr(text, "content"):
            raise DataError(f"The text of `{name}` is a {type(text).__name__}; expected a str.")
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text of `{name}` has no UTF-8: its character {error.start:,} is the half of a pair, "
            f"U+{ord(text[error.start]):04X}. Was it read with errors='surrogateescape'? Give the encoding of its file."
        ) from None
    # a file that was read as UTF-8 keeps its byte order mark
    return StringText(text.removeprefix("\ufeff"))


def _split(
    name: str,
    split: str,
    tokens: Tokens,
    *,
    context: int,
    stride: int | None,
    streams: int | None,
    token_bytes: Tensor | None,
) -> Windows | Streams:
    n = len(tokens.values)
    # `Windows` refuses a context below 1
    if context >= 1 and n <= context:
        raise DataError(_too_short_message(name, split, n, context))
    stride = context if stride is None else stride
    windows = Windows(tokens.values, context, stride, tokens.bytes, token_bytes if tokens.bytes else None)
    return windows if streams is None else Streams(windows, streams)


def _token_bytes(tokenizer: Tokenizer | None) -> Tensor | None:
    # optional: see `tokenizers.portions`
    known = getattr(tokenizer, "token_bytes", None)
    found = known() if known else None
    return None if found is None else torch.tensor(found)


def _too_short_message(name: str, split: str, n: int, context: int) -> str:
    if split == "train":
        longer = "a longer text (or a larger dataset.train_size, if you gave one)"
    else:
        longer = f"a longer text (a larger dataset.{split}_size, if it is cut from the training text; 0 for none)"
    smaller = f"dataset.context={n - 1} or less, or " if n > 1 else ""
    return (
        f"The {split} split of `{name}` has {counted(n, 'token', ',')}; a window of dataset.context={context} "
        f"and the next token need {context + 1:,}. Give {smaller}{longer}."
    )


def _check_range(name: str, tokens: dict[str, Tokens], size: int) -> None:
    for split, some in tokens.items():
        low, high = int(some.values.min()), int(some.values.max())
        if low < 0 or high >= size:
            raise DataError(
                f"The tokens of the {split} split of `{name}` run from {low} to {high}; expected 0 to {size - 1}."
            )
