"""A user's inputs and targets, in any form, as nests of tensors as torch's layers take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import to_tensor
from dlrun.nests.nest import Nest, is_nest, map_nest


def inputs(value: Any, what: str) -> Nest:
    """Inputs as tensors; float64 and uint8 become float32. `what` names them in messages, with `{}` for an entry."""
    return map_nest(lambda t: t.float() if t.dtype in (torch.float64, torch.uint8) else t, _tensors(value, what))


def targets(value: Any, what: str) -> Nest:
    """Targets as tensors; float64 becomes float32."""
    return map_nest(lambda t: t.float() if t.dtype == torch.float64 else t, _tensors(value, what))


def _tensors(value: Any, what: str, place: str = "") -> Nest:
    # a list is an array
    if isinstance(value, Mapping):
        return {str(name): _tensors(part, what, f"{place} `{name}`") for name, part in value.items()}
    if isinstance(value, tuple) and any(is_nest(part) or hasattr(part, "shape") for part in value):
        return tuple(_tensors(part, what, f"{place} `{number}`") for number, part in enumerate(value))
    found: Tensor = to_tensor(value, what.replace("{}", place))
    return found
