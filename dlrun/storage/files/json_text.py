"""JSON that every program reads: NaN and infinity, which it lacks, are the texts "nan", "inf" and "-inf"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

NOT_FINITE = ("nan", "inf", "-inf")
TAG = "not finite"


def dumps(content: Any, *, indent: int | None = None) -> str:
    """The JSON of a content, whose numbers may be no numbers.

    >>> dumps({"val/loss": float("nan"), "steps": 3})
    '{"val/loss": "nan", "steps": 3}'
    """
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:  # rare: what follows takes twice as long
        return json.dumps(_encoded(content, tagged=False), indent=indent, allow_nan=False)


def tagged(content: Any) -> Any:
    """A content of any kinds, from which `untagged` knows a number that is none from a text.

    >>> tagged([float("inf"), "inf"])
    [{'not finite': 'inf'}, 'inf']
    >>> untagged(tagged([float("inf"), "inf"]))
    [inf, 'inf']
    """
    return _encoded(content, tagged=True)


def untagged(content: Any) -> Any:
    """What `tagged` was given."""
    if isinstance(content, Mapping):
        if [*content] == [TAG] and content[TAG] in NOT_FINITE:
            return float(content[TAG])
        return {name: untagged(value) for name, value in content.items()}
    return [untagged(value) for value in content] if isinstance(content, list) else content


def _encoded(content: Any, *, tagged: bool) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return {TAG: str(float(content))} if tagged else str(float(content))
    if isinstance(content, Mapping):
        return {name: _encoded(value, tagged=tagged) for name, value in content.items()}
    return [_encoded(value, tagged=tagged) for value in content] if isinstance(content, list | tuple) else content
