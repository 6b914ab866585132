"""A text as a data set: cut by position, tokenised, in windows whose every token is predicted from those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlrun.datasets.language.corpus import Passage, StringText, Text, cut_by_position
from dlrun.datasets.language.encoding import Tokens
from dlrun.datasets.language.token_cache import tokenizer_of, tokens_of
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.datasets.tensors import fingerprint as hashing
from dlrun.errors import ConfigError, DataError
from dlrun.tokenizers import by_name
from dlrun.tokenizers.description import cache_key
from dlrun.types import Data, Spec, Tokenizer

__all__ = ["from_text"]


def from_text(
    name: str,
    train: str | Text,
    validation: str | Text | None = None,
    test: str | Text | None = None,
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
    """Return a data set made of a text: windows of `context` tokens, at each place of which the next is predicted.

    Without a `validation` (or `test`) text, the training text is cut by position: its last `test_size`
    characters (below 1: that fraction), and the `validation_size` before them. The tokenizer is "character",
    "byte", "word" or "bpe", the last two of `vocabulary_size` tokens, made from the training part alone (an
    alphabet from all parts); or one of your own (`types.Tokenizer`). `train_size` keeps the first so many tokens,
    without changing the tokenizer, so that runs on more and less text can be compared. `stride` and `streams`:
    see `from_tokens`. A long text's tokens are kept in the cache. Raises `DataError` for a text that is too
    short, `ConfigError` for sizes and names.

    >>> data = from_text("mine", "to be or not to be " * 10, context=8, validation_size=0.1)
    >>> len(data.train), data.spec.vocabulary, data.tokenizer.decode(data.train.tokens[:8].tolist())
    (22, 7, 'to be or')
    """
    passages = _passages(name, train, validation, test, validation_size=validation_size, test_size=test_size)
    others = [passage for part, passage in passages.items() if part != "train"]
    if isinstance(tokenizer, str):
        tokenizer = tokenizer_of(tokenizer, passages["train"], others, vocabulary_size=vocabulary_size)
    elif lacking := [name for name in ("size", "encode", "decode", "content") if not hasattr(tokenizer, name)]:
        raise ConfigError(
            f"dataset.tokenizer={tokenizer}: expected {', '.join(by_name.NAMES)}, or an object of a class of yours; "
            f"this one has no `{lacking[0]}`."
        )
    elif vocabulary_size is not None:
        raise ConfigError(f"vocabulary_size={vocabulary_size}: the tokenizer that is given has its own size. Leave it.")
    tokens = {
        part: tokens_of(passage, tokenizer, most=train_size if part == "train" else None)
        for part, passage in passages.items()
    }
    if train_size is not None and not 1 <= train_size <= len(tokens["train"].values):
        most = len(tokens_of(passages["train"], tokenizer).values)
        raise ConfigError(f"dataset.train_size={train_size}: expected 1 to {most}, or null for all of the tokens.")
    text = [part + " " + passage.key for part, passage in passages.items()]
    return from_tokens(
        name,
        *(tokens.get(part) for part in ("train", "validation", "test")),  # type: ignore[arg-type]
        tokenizer=tokenizer,
        context=context,
        stride=stride,
        streams=streams,
        content=hashing.fingerprint(*text, cache_key(tokenizer), str(train_size)),
        notes={"characters": sum(map(len, passages.values()))} | dict(notes or {}),
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
    """Return a data set made of tokens [N], whole numbers below `vocabulary` (that of the tokenizer, if there is one).

    Windows of `context` tokens lie side by side, and each token but a split's first is predicted once. With a
    `stride` below `context` they overlap and predict their last `stride` tokens, so that each is predicted from
    at least context - stride others. With `streams` evaluation walks along so many long rows instead, a model
    carrying its memory. The fingerprint tells tokens apart (by `content`, a hash, where the caller has one), and
    not in which windows they are seen: those are the configuration's, and perplexities of the same tokens can
    be compared. Raises `DataError` for splits that are shorter than a window, or tokens out of range.
    """
    given = {"train": train, "validation": validation, "test": test}
    tokens = {
        part: split if isinstance(split, Tokens) else Tokens(split)
        for part, split in given.items()
        if split is not None
    }
    size = tokenizer.size if tokenizer else vocabulary or 1 + max(int(split.values.max()) for split in tokens.values())
    if content is None:
        content = hashing.fingerprint(*(split.values for split in tokens.values()))
        _check_range(name, tokens, size)
    splits = {
        part: _split(name, part, split, context=context, stride=stride, streams=streams)
        for part, split in tokens.items()
    }
    counts = {f"{part}_tokens": len(split.values) for part, split in tokens.items()}
    return Data(
        name=name,
        spec=Spec("language", (context,), outputs=size, vocabulary=size),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=hashing.fingerprint(name, content),
        tokenizer=tokenizer,
        notes={"vocabulary": size} | counts | dict(notes or {}),
    )


def _passages(
    name: str,
    train: str | Text,
    validation: str | Text | None,
    test: str | Text | None,
    *,
    validation_size: int | float,
    test_size: int | float,
) -> dict[str, Passage]:
    own = {"validation": validation, "test": test}
    for part, size in (("validation", validation_size), ("test", test_size)):
        if own[part] is not None and size:
            raise ConfigError(f"dataset.{part}_size={size}: the data set `{name}` has its own {part} split. Give 0.")
    text = _text(train)
    if not len(text):
        raise DataError(f"The text of `{name}` is empty.")
    cut = cut_by_position(text, validation_size=validation_size, test_size=test_size)
    return cut | {part: Passage.whole(_text(text)) for part, text in own.items() if text is not None}


def _text(text: str | Text) -> Text:
    return StringText(text) if isinstance(text, str) else text


def _split(
    name: str, part: str, tokens: Tokens, *, context: int, stride: int | None, streams: int | None
) -> Windows | Streams:
    n = len(tokens.values)
    if context >= 1 and n <= context:
        raise DataError(_too_short(name, part, n, context))
    windows = Windows(tokens.values, context, context if stride is None else stride, tokens.bytes)
    return windows if streams is None else Streams(windows, streams)


def _too_short(name: str, part: str, n: int, context: int) -> str:
    """Return what is wrong with a split of `n` tokens that fill no window, and what to type."""
    if part == "train":
        longer = "a longer text (a larger dataset.train_size, where it is given)"
    else:
        longer = f"a longer text (a larger dataset.{part}_size, where it is cut from the training text; 0 for none)"
    smaller = f"dataset.context={n - 1} or less, or " if n > 1 else ""
    return (
        f"The {part} split of `{name}` has {n:,} token{'s' if n != 1 else ''}; a window of dataset.context={context} "
        f"and the token behind it need {context + 1:,}. Give {smaller}{longer}."
    )


def _check_range(name: str, tokens: dict[str, Tokens], size: int) -> None:
    for part, split in tokens.items():
        low, high = int(split.values.min()), int(split.values.max())
        if low < 0 or high >= size:
            raise DataError(
                f"The tokens of the {part} split of `{name}` run from {low} to {high}; expected are 0 to {size - 1}."
            )
