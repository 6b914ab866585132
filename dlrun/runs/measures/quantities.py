"""The quantities that a run measures: which values are better, and their unit.

Two values can be compared if they have one unit and were measured on the same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from dlrun import metrics as known_metrics
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.tokenizers.description import cache_key
from dlrun.types import Data, Metric, Quantity


def quantities(plain: Mapping[str, Any], data: Data, metrics: Mapping[str, Metric]) -> dict[str, Quantity]:
    """The loss, the metrics and what is derived from them, by name without the split."""
    token = _token(data)
    found = {"loss": Quantity(higher_is_better=False, unit=_call(plain["loss"]) + token)}
    for name, metric in metrics.items():
        # a task's own metric is listed in no configuration
        part = plain["metrics"].get(name) or {"_target_": f"{known_metrics.__name__}.{name}"}
        found[name] = Quantity(higher_is_better=known_metrics.higher_is_better(metric), unit=_call(part) + token)
    known_bytes = bytes_per_token(data.validation) if data.validation else None
    for name in known_metrics.derive(dict.fromkeys(metrics, 0.0), bytes_per_token=known_bytes):
        unit = "bits a byte" if name == "bits_per_byte" else name + token
        found[name] = Quantity(higher_is_better=False, unit=unit)
    return found


def _token(data: Data) -> str:
    """The addition to the unit of a mean over tokens."""
    if data.spec.task != "language":
        return ""
    if data.tokenizer is None:
        return f", a token of {data.spec.vocabulary}"
    # two tokenizers of one size may cut a text in different ways
    key = hashlib.sha256(cache_key(data.tokenizer).encode()).hexdigest()[:8]
    return f", a token of {data.spec.vocabulary} ({key})"


def _call(part: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in sorted(part.items()) if name != "_target_")
    return f"{part['_target_']}({arguments})"
