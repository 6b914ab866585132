"""The shapes of nested samples, in a spec, in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlrun.nests.nest import Nest, map_nest


def shapes_of(nest: Nest) -> Any:
    """The shape of each tensor of one sample, from a batch: without the first axis.

    >>> import torch
    >>> shapes_of({"image": torch.zeros(5, 1, 8, 8), "age": torch.zeros(5, 1)})
    {'image': (1, 8, 8), 'age': (1,)}
    """
    return map_nest(lambda t: tuple(t.shape[1:]), nest)


def is_shape(value: Any) -> bool:
    """Is it the shape of one tensor: a tuple of sizes, None where they differ from sample to sample?"""
    return isinstance(value, tuple | list) and all(size is None or isinstance(size, int) for size in value)


def shapes_in(shapes: Any) -> list[tuple[int | None, ...]]:
    """All shapes of a nest, in order.

    >>> shapes_in({"a": (3,), "b": ((None, 2), ())})
    [(3,), (None, 2), ()]
    """
    found: list[tuple[int | None, ...]] = []
    map_shapes(found.append, shapes)
    return found


def map_shapes(function: Callable[[tuple[int | None, ...]], Any], shapes: Any) -> Any:
    """The nest with `function` of each shape."""
    if is_shape(shapes):
        return function(shapes)
    if isinstance(shapes, dict):
        return {name: map_shapes(function, shape) for name, shape in shapes.items()}
    return tuple(map_shapes(function, shape) for shape in shapes)


def fits(shapes: Any, expected: Any) -> bool:
    """Are these the expected shapes, where None stands for any size?

    >>> fits({"a": (3,), "b": (2, 5)}, {"a": (None,), "b": (2, 5)}), fits((3,), (4,))
    (True, False)
    """
    if is_shape(expected):
        return (
            is_shape(shapes)
            and len(shapes) == len(expected)
            and all(size in (None, own) for own, size in zip(shapes, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(shapes, dict)
            and shapes.keys() == expected.keys()
            and all(fits(shapes[k], expected[k]) for k in expected)
        )
    return isinstance(shapes, tuple) and len(shapes) == len(expected) and all(map(fits, shapes, expected))


def describe_shapes(shapes: Any) -> str:
    """Shapes in words.

    >>> describe_shapes({"image": (1, 8, 8), "words": (None,)})
    'image [1, 8, 8], words [any]'
    """
    return ", ".join(f"{name} {text}".strip() for name, text in _named(shapes))


def shapes_from(content: Any) -> Any:
    """Shapes from JSON values, where tuples have become lists.

    >>> shapes_from({"a": [1, 8], "b": [[2], [None]]})
    {'a': (1, 8), 'b': ((2,), (None,))}
    """
    if isinstance(content, dict):
        return {name: shapes_from(value) for name, value in content.items()}
    return tuple(content) if is_shape(content) else tuple(map(shapes_from, content))


def sizes_of(shapes: Any) -> list[int | None]:
    """All sizes of all shapes.

    >>> sizes_of({"a": (1, 8), "b": ((2,), (None,))})
    [1, 8, 2, None]
    """
    if is_shape(shapes):
        return [*shapes]
    return [size for inner in (shapes.values() if isinstance(shapes, dict) else shapes) for size in sizes_of(inner)]


def _named(shapes: Any, name: str = "") -> list[tuple[str, str]]:
    if is_shape(shapes):
        return [(name, f"[{', '.join('any' if size is None else str(size) for size in shapes)}]")]
    items = shapes.items() if isinstance(shapes, dict) else enumerate(shapes)
    return [found for key, value in items for found in _named(value, f"{name}.{key}" if name else str(key))]
