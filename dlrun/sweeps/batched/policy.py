"""Which jobs the launcher `batched` may run in its own process, and the line that says why not."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from dlrun.storage.results import Result
from dlrun.storage.sources import targets
from dlrun.sweeps.run_job import needs_hydra
from dlrun.terminal import output
from dlrun.terminal.format import counted

TRUSTED = ("dlrun.", "torch.")
"""The packages whose parts change nothing of a process but what `isolation.isolated` restores."""


def why_not_here(result: Result, hydra: DictConfig) -> str | None:
    """The reason for a process of its own, or None."""
    if needs_hydra(hydra):
        return "they want something of Hydra (callbacks, an environment, a logging of their own)"
    # the study's part is read when all jobs have ended
    parts = {key: value for key, value in result.job.config.items() if key != "study"}
    own = next((target for target in targets(parts) if not target.startswith(TRUSTED)), None)
    if own is not None:
        return f"{own} is not dlrun's: what it does to its process is not known"
    # it may have killed its process, which here is the sweep's
    if result.status == "killed" and not result.summary.error and not result.summary.stacked:
        return "they were killed without a word, and may do so to their process again"
    return None


def say_reasons(reasons: Mapping[str, int], *, how: str) -> None:
    """Print the reasons with their numbers of jobs."""
    for reason, count in reasons.items():
        output.say(f"batched: {counted(count, 'job')} {how}: {reason}")
