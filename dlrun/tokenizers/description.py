"""A tokenizer described, for `tokenizer.json` in a run's folder and for the keys of the cache."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from dlrun.errors import ConfigError
from dlrun.tokenizers.by_name import CLASSES
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import Tokenizer

PAIR = "pair"
"""The `kind` of the tokenizers of source and target."""


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a tokenizer, as JSON can hold it.

    For a class of the user's its full name is beside it. Raises `ConfigError` if JSON cannot hold the content.

    >>> from dlrun.tokenizers.byte import Byte
    >>> describe(Byte())
    {'kind': 'byte'}
    """
    if isinstance(tokenizer, PairTokenizer):
        return {"kind": PAIR, "source": describe(tokenizer.source), "target": describe(tokenizer.target)}
    kind = type(tokenizer)
    if kind in CLASSES.values():
        return tokenizer.content()
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        # as it will be read back: JSON makes lists of tuples, and lacks NaN
        return {"class": name, "content": json.loads(json.dumps(tokenizer.content(), allow_nan=False))}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}.content() is not what JSON can hold: {error}.") from None


def read(path: Path) -> dict[str, Any]:
    """The description in a run's `tokenizer.json`.

    Raises `ConfigError` if the file holds none.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if not isinstance(described, dict):
        raise ConfigError(f"{path} describes no tokenizer: expected an object with `kind` or `class`.")
    return described


def cache_key(tokenizer: Tokenizer) -> str:
    """The description, and the SHA-256 of a user's file."""
    if isinstance(tokenizer, PairTokenizer):
        return f"{PAIR} {cache_key(tokenizer.source)} {cache_key(tokenizer.target)}"
    description = json.dumps(describe(tokenizer), sort_keys=True)
    file = getattr(sys.modules.get(type(tokenizer).__module__), "__file__", None)
    if type(tokenizer) in CLASSES.values() or not file:
        return description
    # another program may give other tokens from the same content
    return f"{description} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
