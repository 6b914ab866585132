"""The job of SLURM in which this process runs: why it is asked to stop, and how it is given back."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import datetime

NEAR = 600.0
"""Seconds before the limit of time within which a signal is taken for its announcement (`sbatch --signal`)."""


def is_preempted() -> bool:
    """Whether SLURM has preempted the job: SIGTERM alone does not say so, for scancel sends it too."""
    return _is_preempted(_fields())


def is_to_go_on() -> bool:
    """Whether SLURM ends the job, for another or at its limit of time, and nobody has cancelled it."""
    fields = _fields()
    return _is_preempted(fields) or (fields.get("JobState") == "RUNNING" and _seconds_left(fields) < NEAR)


def requeue() -> bool:
    """Have SLURM run the job again, from its script's beginning; False if it refuses."""
    # of an array's task the number that SLURM gave it: the array's would be all of them
    return _run("scontrol", "requeue", os.environ["SLURM_JOB_ID"]) is not None


def _is_preempted(fields: dict[str, str]) -> bool:
    return fields.get("PreemptTime", "None") not in ("None", "Unknown") or fields.get("JobState") == "PREEMPTED"


def _seconds_left(fields: dict[str, str]) -> float:
    try:
        return datetime.fromisoformat(fields["EndTime"]).timestamp() - time.time()
    except (KeyError, ValueError):  # a job without a limit
        return float("inf")


def _fields() -> dict[str, str]:
    """What `scontrol show job` says; empty outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    shown = _run("scontrol", "show", "job", "-o", job) if job else None
    return dict(word.partition("=")[::2] for word in (shown or "").split() if "=" in word)


def _run(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
