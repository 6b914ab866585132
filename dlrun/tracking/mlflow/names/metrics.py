"""The names of metrics in MLflow: what is no result stands under `system/`, which has a tab of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from dlrun.tracking.mlflow.names.limits import fit

# groups of metrics that measure the machine
MACHINE = ("throughput", "cost", "memory")


@functools.lru_cache(4096)
def metric_name(name: str, *, old: bool = False) -> str:
    """The name that MLflow is given; `old` is that of before 0.2.

    >>> metric_name("cost/mfu"), metric_name("cost/mfu", old=True), metric_name("val/loss")
    ('system/mfu', 'cost/mfu', 'val/loss')
    """
    group, _, rest = name.partition("/")
    # one slash: MLflow puts only these into its section "System metrics"
    return fit(f"system/{rest}" if rest and group in MACHINE and not old else name)


def has_old_names(stored: Iterable[str]) -> bool:
    """Whether a stored run has the names of before 0.2."""
    return any(name.partition("/")[0] in MACHINE for name in stored)
