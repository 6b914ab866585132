"""Equal parts of the configurations of a sweep's jobs, kept once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SharedParts:
    """Keeps each part once: ten thousand jobs differ in a few values, and each configuration takes 20 kB.

    What is shared must not be changed in place.

    >>> shared = SharedParts()
    >>> one, other = shared.share({"model": {"width": 8}}), shared.share({"model": {"width": 8}})
    >>> one["model"] is other["model"], shared.share({"model": {"width": 8.0}})
    (True, {'model': {'width': 8.0}})
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def share(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration whose groups are those of earlier ones that are equal, by value and type."""
        # by the text: 1, 1.0 and True are equal to Python
        return {
            name: self._known.setdefault(repr(value), value) if isinstance(value, str | dict | list) else value
            for name, value in config.items()
        }
