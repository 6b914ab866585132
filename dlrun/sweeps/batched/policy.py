"""Which jobs the launcher `batched` may run in this process, and what processes of their own would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.sweeps.job import needs_hydra
from dlrun.terminal import output

SHORT = 20
"""Fewer steps than these are over before it would pay to stack them."""

SERVER, PROCESS = 2.3, 0.09
"""Seconds until the pool's first job begins, and more for each job (measured on a 2-core EPYC)."""

TRUSTED = ("dlrun.", "torch.")
"""The packages whose parts change nothing of a process but what `in_process.isolated` restores."""


def is_short(job: Job) -> bool:
    """True if the configuration gives fewer than `SHORT` steps."""
    trainer = job.config["trainer"]
    # by epochs or minutes, the number of steps is not known yet
    steps = None if trainer["minutes"] else trainer["steps"]
    return bool(trainer["fast"]) or (steps is not None and steps < SHORT)


def seconds_in_pool(count: int, seconds: float, slots: int) -> float:
    """Seconds of `count` equal jobs in the pool.

    >>> seconds_in_pool(10, 0.11, slots=2)
    3.3
    """
    return SERVER + count * (PROCESS + seconds) / min(slots, count)


def why_not_here(result: Result, hydra: DictConfig) -> str | None:
    """The reason for a process of its own, or None."""
    if needs_hydra(hydra):
        return "they want something of Hydra (callbacks, an environment, a logging of their own)"
    own = next((target for target in _targets(result.job.config) if not target.startswith(TRUSTED)), None)
    if own is not None:
        return f"{own} is not dlrun's: what it does to its process is not known"
    # it may have killed its process, which here is the sweep's
    if result.status == "killed" and not result.summary.error and not result.summary.stacked:
        return "they were killed without a word, and may do so to their process again"
    return None


def say_reasons(reasons: Mapping[str, int], *, how: str) -> None:
    """Print the reasons with their numbers of jobs."""
    for reason, count in reasons.items():
        output.say(f"batched: {count} job{'s' * (count != 1)} {how}: {reason}")


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        for name, inner in value.items():
            if name != "study":  # read when all jobs have ended
                yield from _targets(inner)
