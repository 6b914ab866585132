"""`resume=auto`: the same command goes on with its run, as a scheduler gives it again after a preemption."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import DamagedFile, UserError
from dlrun.runs.build import Built
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.lookup import outputs
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.cluster import slurm_job
from dlrun.terminal import output

PATIENCE = 35.0
"""Seconds for which a process that was told to end may go on with the run."""


class Unfinished(Exception):
    """A run that was composed is in `folder` already, begun and not finished."""

    def __init__(self, folder: RunDir) -> None:
        super().__init__(str(folder.path))
        self.folder = folder


def check(built: Built, identity: str, folder: RunDir) -> None:
    """With `resume=auto` raise `Unfinished` for the newest unfinished run of the same identity.

    It is looked for among the single runs of the outputs folder; in a `folder` that holds a run only there. Raises
    `UserError` if another process is training it.
    """
    if built.config.get("resume") != "auto":
        return
    places = [folder] if folder.journal.exists() else _newest_first()
    found = next((run for run in places if _is_unfinished(run, identity)), None)
    if found is None:
        return
    if found.alive():
        output.say(f"waiting for {found.path}: another process is training it")
        if not wait_until(lambda: not found.alive(), PATIENCE):
            raise UserError(f"{found.path} is this run, and another process is training it. Leave out resume=auto.")
        if not _is_unfinished(found, identity):
            return
    raise Unfinished(found)


@contextmanager
def requeued(built: Built) -> Iterator[None]:
    """With `resume=auto` have SLURM run a job again that it has preempted, or that has come to its limit of time.

    SLURM itself does so only for jobs that have not ended within their grace time.
    """
    try:
        yield
    except SystemExit as stopped:
        asked = built.config.get("resume") == "auto" and stopped.code == 128 + signal.SIGTERM
        if asked and slurm_job.is_to_go_on():
            done = slurm_job.requeue()
            output.say("SLURM runs this job again" if done else "SLURM has refused to run this job again (--requeue)")
        raise


def _newest_first() -> list[RunDir]:
    # a folder's name begins with its time
    return [RunDir(Path(path.parent)) for path in sorted(outputs().glob("runs/*/*/summary.json"), reverse=True)]


def _is_unfinished(run: RunDir, identity: str) -> bool:
    # one bad file among others stops nothing
    with suppress(DamagedFile):
        return run.summary().identity == identity and run.journal.exists() and run.status() != "finished"
    return False
