"""Data sets: a file each, a function of plain values that returns `dlrun.types.Data`.

`from_tensors`, `from_nested`, `from_datasets`, `from_stream` and `from_text` make one of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlrun.datasets.language.from_text import from_text
    from dlrun.datasets.nested.from_nested import from_nested
    from dlrun.datasets.samples.collate import Pad
    from dlrun.datasets.samples.map_style import from_datasets
    from dlrun.datasets.samples.stream import from_stream
    from dlrun.datasets.tensors.tensors import from_tensors

__all__ = ["Pad", "from_datasets", "from_nested", "from_stream", "from_tensors", "from_text"]

_FILES = {
    "from_tensors": "tensors.tensors",
    "from_nested": "nested.from_nested",
    "from_datasets": "samples.map_style",
    "from_stream": "samples.stream",
    "Pad": "samples.collate",
    "from_text": "language.from_text",
}


def __getattr__(name: str) -> Any:
    # imported on demand: `dlrun list` and `dlrun data` need no torch
    if name in _FILES:
        return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
