"""What the launcher `batched` does with each job: in this process, or in one of its own as `local` does.

A process of its own costs a job 0.09 s, and the first of them a second import of torch; what a job costs here is a
fifth of that. So jobs are carried out here, one after another, where this takes no longer than the slots would,
and where they can be trusted with the process that conducts the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from dlrun.runs import scoring
from dlrun.runs.build import Built
from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.sweeps.job import asks_hydra
from dlrun.terminal import output
from dlrun.terminal.format import duration

TRUSTED = ("dlrun.", "torch.")
"""How the targets begin whose code is known to leave a process as it was."""

SERVER, PROCESS, HERE = 2.3, 0.09, 0.02
"""Seconds until the first job has its process, for each job more, and for a job in this process (2 cores)."""
STEP, EVALUATION, RATE = 2e-4, 1e-3, 2e10
"""Seconds of a step and of an evaluation beside their arithmetic, and FLOP a second of it on one thread."""


def chosen(launcher: Mapping[str, Any] | DictConfig) -> bool:
    """Return whether these are the settings of the launcher `batched`."""
    return str(launcher.get("_target_", "")).endswith(".BatchedLauncher")


def seconds_of(built: Built) -> float:
    """Return a guess of how long a job will train and be evaluated on the CPU: only its order of magnitude is meant."""
    plan, data = built.training.plan, built.data
    forward = built.flop_per_step / built.training.batches.size / 3 / RATE
    validations = math.ceil(plan.steps / plan.evaluate_every)
    once = [scoring.sampled(built), *([data.test] if data.test and built.evaluation.test == "every" else [])]
    samples = sum(map(len, once)) + validations * (len(data.validation) if data.validation else 0)
    evaluated = (len(once) + validations) * EVALUATION + samples * forward
    if built.trainer.minutes is not None:
        return built.trainer.minutes * 60 + evaluated
    return plan.steps * (STEP + built.flop_per_step / RATE) + evaluated


def fits_here(jobs: Sequence[Job], seconds: Mapping[int, float], *, slots: int) -> str | None:
    """Return why jobs should rather have processes of their own; None if one after another here they take no longer.

    `seconds` are guesses of what each job trains by its number, `slots` how many processes there could be.
    """
    here = sum(seconds.get(job.n, 0.0) + HERE for job in jobs)
    apart = SERVER + sum(seconds.get(job.n, 0.0) + PROCESS for job in jobs) / max(1, min(slots, len(jobs)))
    if slots <= 1 or here <= apart:
        return None
    return f"in {slots} slots they take about {duration(apart)}, here {duration(here)}"


def against(result: Result, hydra: DictConfig) -> str | None:
    """Return why a job needs a process of its own, or None if it can be trusted with this one."""
    if asks_hydra(hydra):
        return "they want something of Hydra (callbacks, an environment, a logging of their own)"
    own = next((target for target in _targets(result.job.config) if not target.startswith(TRUSTED)), None)
    if own is not None:
        return f"{own} is not dlrun's: what it does to its process is not known"
    if result.status == "killed" and not result.summary.error and not result.summary.stacked:
        return "they were killed without a word, and may do so to their process again"
    return None


def tell(jobs: Sequence[Job], seconds: Mapping[int, float]) -> None:
    """Say that jobs are carried out here, and how long they will take."""
    if jobs:
        about = duration(sum(seconds.get(job.n, 0.0) + HERE for job in jobs))
        order = ", one after another" * (len(jobs) > 1)
        output.say(f"batched: {_jobs(len(jobs))} in this process{order}: about {about}")


def tell_reasons(reasons: Mapping[str, int], *, way: str) -> None:
    """Say why jobs are carried out in another way than the best one."""
    for reason, count in reasons.items():
        output.say(f"batched: {_jobs(count)} {way}: {reason}")


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        for name, inner in value.items():
            if name != "study":
                yield from _targets(inner)
