"""Values of attributes as what a checkpoint may hold: tensors, numbers, text, and lists and dicts of these."""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
from collections import deque
from collections.abc import Hashable, Iterator
from io import IOBase
from typing import Any

import torch
from torch import Tensor, nn

KIND, VALUE = "kind", "value"
"""The keys of an encoded value that is none of a checkpoint's own types."""

PLAIN = (bool, int, float, str, bytes, type(None))
"""The types that a checkpoint holds as they are."""

DEPTH = 6
"""Levels of nested containers to look into."""

LARGE = 1 << 22
"""Values of a tensor that are compared by its version, and not one by one."""


class Unsaveable(Exception):
    """A value of a type that no checkpoint holds."""


def encode(value: Any, depth: int = DEPTH) -> Any:
    """A copy of a value for a checkpoint; raises `Unsaveable`.

    >>> decode(encode({"seen": [1, (2, 3)], "last": {4}}))
    {'seen': [1, (2, 3)], 'last': {4}}
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        content = [encode(inner, depth - 1) for inner in value]
        return content if type(value) is list else {KIND: _container(value), VALUE: content}
    if depth and isinstance(value, dict):
        pairs = [[encode(key, depth - 1), encode(inner, depth - 1)] for key, inner in value.items()]
        return {KIND: "dict", VALUE: pairs}
    if isinstance(value, random.Random):
        return {KIND: "random", VALUE: encode(value.getstate())}
    if isinstance(value, torch.Generator):
        return {KIND: "generator", VALUE: value.get_state()}
    return _encode_numpy(value)


def decode(content: Any, now: Any = None) -> Any:
    """The value of an encoded one, in place of `now`.

    Containers and generators that others may hold too are changed in place.
    """
    if isinstance(content, list):
        return _fill(now, list(map(decode, content)))
    if not isinstance(content, dict):
        return content.to(now.device) if isinstance(content, Tensor) and isinstance(now, Tensor) else content
    kind, value = content[KIND], content[VALUE]
    if kind == "dict":
        return _fill(now, {decode(key): decode(inner) for key, inner in value})
    if kind in _CONTAINERS:
        return _fill(now, _CONTAINERS[kind](map(decode, value)))
    if kind == "random":
        made = now if isinstance(now, random.Random) else random.Random()
        made.setstate(decode(value))
        return made
    if kind == "generator":
        generator = now if isinstance(now, torch.Generator) else torch.Generator()
        generator.set_state(value.cpu())
        return generator
    return _decode_numpy(kind, value, now)


def copy_plain(value: Any) -> Any:
    """A copy of a state dict; raises `Unsaveable` for what no checkpoint holds.

    >>> copy_plain({"step": 3, "seen": (1, [2])})
    {'step': 3, 'seen': (1, [2])}
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        # the version numbers of a module's state dict are an attribute: they do not matter to the same module
        return {copy_plain(key): copy_plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(copy_plain, value))
    raise Unsaveable(type(value).__name__)


def mark(value: Any, depth: int = DEPTH) -> Hashable:
    """Equal marks for values of equal content.

    Of a value of an unknown type only the type counts: a new object in each step need be no state.

    >>> mark([1.0, {"a": 2}]) == mark([1.0, {"a": 2}]), mark([1.0]) == mark([1])
    (True, False)
    """
    if type(value) in PLAIN:
        return type(value).__name__, repr(value)
    if isinstance(value, nn.Parameter):  # trained, and saved with the module that has it
        return "parameter"
    if isinstance(value, Tensor):
        return "tensor", str(value.dtype), tuple(value.shape), _digest(value)
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        inner = [mark(each, depth - 1) for each in value]
        return type(value).__name__, tuple(sorted(map(str, inner)) if isinstance(value, set | frozenset) else inner)
    if depth and isinstance(value, dict):
        return "dict", tuple((repr(key), mark(each, depth - 1)) for key, each in value.items())
    if isinstance(value, random.Random):
        return "random", value.getstate()
    if isinstance(value, torch.Generator):
        return "generator", _digest(value.get_state())
    if isinstance(value, itertools.count):
        return "count", repr(value)
    return _mark_numpy(value)


def is_iterator(value: Any) -> bool:
    """An iterator has a place that cannot be read back."""
    return isinstance(value, Iterator) and not isinstance(value, IOBase)


_CONTAINERS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}


def _container(value: Any) -> str:
    return next(name for name, kind in _CONTAINERS.items() if isinstance(value, kind))


def _fill(now: Any, content: Any) -> Any:
    if isinstance(now, list) and isinstance(content, list):
        now[:] = content
        return now
    if isinstance(now, dict | set | deque) and isinstance(content, dict | set | deque):
        now.clear()
        # subclasses too, such as a Counter: their class, and a deque's length, stay
        now.extend(content) if isinstance(now, deque) else now.update(content)
        return now
    return content


def _digest(tensor: Tensor) -> str:
    if tensor.numel() > LARGE:
        return f"{tensor.data_ptr()} {tensor._version}"
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _numpy() -> Any:
    # not imported for those who do not use it
    return sys.modules.get("numpy")


def _encode_numpy(value: Any) -> Any:
    numpy = _numpy()
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype != object:
        try:
            return {KIND: "array", VALUE: torch.from_numpy(value.copy())}
        except TypeError:  # of text, say
            raise Unsaveable(type(value).__name__) from None
    if numpy is not None and isinstance(value, numpy.generic):
        return {KIND: "array", VALUE: torch.from_numpy(numpy.array([value]))[0]}
    if numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState):
        return {KIND: "numpy", VALUE: encode(_numpy_state(value))}
    raise Unsaveable(type(value).__name__)


def _decode_numpy(kind: str, value: Any, now: Any) -> Any:
    if kind == "array":
        return value.cpu().numpy()[()]
    import numpy

    state = decode(value)
    if isinstance(now, numpy.random.RandomState):
        now.set_state(state)
    elif isinstance(now, numpy.random.Generator):
        now.bit_generator.state = state
    return now


def _mark_numpy(value: Any) -> Hashable:
    numpy = _numpy()
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype != object:
        # nothing counts the changes of a large one: some of its values are compared
        some = value.reshape(-1)[:: max(1, value.size // LARGE)]
        digest = hashlib.blake2b(some.tobytes(), digest_size=16).hexdigest()
        return "array", str(value.dtype), value.shape, digest
    if numpy is not None and isinstance(value, numpy.generic):
        return type(value).__name__, repr(value)
    if numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState):
        return "numpy", mark(_numpy_state(value))
    return "object", type(value).__module__, type(value).__qualname__


def _numpy_state(generator: Any) -> Any:
    return generator.get_state() if hasattr(generator, "get_state") else generator.bit_generator.state
