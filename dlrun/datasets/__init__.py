"""The data sets: one file each, a function of plain values that returns `dlrun.types.Data`.

A data set of one's own is such a function too, made with `from_tensors`, `from_datasets` or
`from_text`. They are imported when they are asked for: this file must cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlrun.datasets.language.from_text import from_text
    from dlrun.datasets.tensors.map_style import from_datasets
    from dlrun.datasets.tensors.tensors import from_tensors

__all__ = ["from_datasets", "from_tensors", "from_text"]


def __getattr__(name: str) -> Any:
    if name == "from_tensors":
        from dlrun.datasets.tensors.tensors import from_tensors

        return from_tensors
    if name == "from_datasets":
        from dlrun.datasets.tensors.map_style import from_datasets

        return from_datasets
    if name == "from_text":
        from dlrun.datasets.language.from_text import from_text

        return from_text
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
