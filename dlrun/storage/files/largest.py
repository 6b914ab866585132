"""The largest tensor of what a file holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def largest_tensor(content: Any) -> int:
    """The bytes of the largest tensor, once it is copied: one number may stand for many in a file."""
    largest, waiting, seen = 0, [content], set[int]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Tensor):
            largest = max(largest, 0 if each.is_meta else each.numel() * each.element_size())
        # a list may hold itself
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            waiting += each.values() if isinstance(each, dict) else each
    return largest
