"""What a checkpoint may set in a user's own parts and modules.

It may come from somebody else, who must not get to choose a path or a command there. A value is taken if the code
changes that attribute by itself, as the first passes or its source show; if it is of the kind of the first value, or
one of them is None; and if each text in it is in the first value or in the user's own source. Keys of a part's state
dict may be names of torch's optimizers too. The same is asked before a value is saved, so whoever trains is told at
once of state that a resumed run would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.own.encoding import KIND, VALUE
from dlrun.engine.own.source import SourceNames, optimizer_names
from dlrun.errors import UserError

PREFIX = "state."
"""Before a name in `trusted`: a checkpoint may set it to anything."""

NUMBERS = ("number", "tensor", "array")
GENERATORS = ("random", "generator", "numpy")
IN_PLACE = ("list", "dict", "set", "deque", "tensor", "array", *GENERATORS)
"""Kinds of values that change without being assigned."""

_TENSOR = torch.empty(0)
_OTHER = {KIND: "object", VALUE: None}


class Admission:
    """Decides by the first values of attributes and state dicts which further ones they may take."""

    def __init__(self, read: Callable[[], SourceNames], trusted: Collection[str]) -> None:
        self._read = read
        self._trusted = trusted
        self._first: dict[str, Any] = {}
        self._texts_of_parts: dict[str, set[str | bytes]] = {}
        self._seen: set[str] = set()

    def begin(self, names: Iterable[str], values: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        """Take the first values of attributes, encoded, and the first state dicts of parts."""
        # of a tensor the kind alone matters
        self._first = {name: _TENSOR if _kind(each := values.get(name, _OTHER)) == "tensor" else each for name in names}
        self._texts_of_parts = {name: {*_texts(state)} for name, state in parts.items()}

    def see(self, names: Iterable[str]) -> None:
        """Take the names of attributes that passes were seen to change."""
        self._seen = {*names}

    @cached_property
    def _source(self) -> SourceNames:
        # read only where there is state
        return self._read()

    def not_to_set(self, attributes: Mapping[str, Any]) -> dict[str, str]:
        """Why attributes may not take encoded values, by those that may not."""
        return {name: reason for name, content in attributes.items() if (reason := self.why_not(name, content))}

    def not_to_load(self, parts: Mapping[str, Any]) -> dict[str, str]:
        """Why parts may not load state dicts, by those that may not."""
        reasons = {name: self._foreign_in(state, self._texts_of_parts.get(name, ())) for name, state in parts.items()}
        return {name: reason for name, reason in reasons.items() if reason and PREFIX + name not in self._trusted}

    def why_not(self, name: str, content: Any) -> str | None:
        """Why an attribute may not take an encoded value."""
        if PREFIX + name in self._trusted:
            return None
        first = self._first.get(name)
        if name not in self._seen and not self._changes(name.rpartition(".")[-1], first):
            return "your code does not change it"
        kind, given = _kind(first), _kind(content)
        numbers = kind in NUMBERS and given in NUMBERS
        if kind != given and not numbers and "none" not in (kind, given):
            return f"it is a {kind} at first, and there a {given}"
        return self._foreign(_encoded_texts(content), [*_encoded_texts(first)])

    def _changes(self, key: str, first: Any) -> bool:
        # of a class's private `__calls` the attribute is `_Own__calls`
        names = {key, "__" + key.partition("__")[2]} if key.startswith("_") else {key}
        source = self._source
        return bool(names & source.assigned) or (bool(names & source.mutated) and _kind(first) in IN_PLACE)

    def _foreign_in(self, state: Any, own: Collection[str | bytes]) -> str | None:
        reason = self._foreign(_texts(state), own)
        # an optimizer of torch's in a part names its state with the first step; torch's source is read where it matters
        return reason and self._foreign(_texts(state, names=optimizer_names()), own)

    def _foreign(self, texts: Iterable[str | bytes], own: Collection[str | bytes]) -> str | None:
        known = {*own}
        found = (text for text in texts if text not in known and text not in self._source.texts)
        return next((f"the text {text[:40]!r} is not in your code" for text in found), None)


def refuse(reasons: Mapping[str, str]) -> None:
    """Raise `UserError` if there are reasons, by attribute."""
    if reasons:
        name, reason = next(iter(reasons.items()))
        names = ",".join(PREFIX + each for each in reasons)
        raise UserError(
            f"The checkpoint would set {name}, and {reason}. It may come from somebody else. If it is yours, type "
            f"`'trusted=[{names}]'`."
        )


def _kind(content: Any) -> str:
    if content is None:
        return "none"
    if isinstance(content, str | bytes):
        return "text"
    if isinstance(content, bool | int | float):
        return "number"
    if isinstance(content, Tensor):
        return "tensor"
    return "list" if isinstance(content, list) else str(content[KIND])


def _encoded_texts(content: Any) -> Iterator[str | bytes]:
    if isinstance(content, str | bytes):
        yield content
    elif isinstance(content, list):
        for each in content:
            yield from _encoded_texts(each)
    # the state of a generator names its kind
    elif isinstance(content, dict) and content[KIND] not in GENERATORS:
        yield from _encoded_texts(content[VALUE])


def _texts(content: Any, names: Collection[str] = ()) -> Iterator[str | bytes]:
    """The texts of a state dict, but for keys that are among `names`."""
    if isinstance(content, str | bytes):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            if key not in names:
                yield from _texts(key)
            yield from _texts(value, names)
    elif isinstance(content, list | tuple | set | frozenset):
        for each in content:
            yield from _texts(each, names)
