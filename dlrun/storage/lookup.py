"""Runs and sweeps found by their folder or the beginning of their id."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from dlrun.errors import DamagedFile, UserError
from dlrun.storage.files.links import check_files
from dlrun.storage.rundir import REUSED, RunDir, follow_reuse
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output

F = TypeVar("F")
R = TypeVar("R")


def outputs() -> Path:
    """The folder of all runs: `DLRUN_OUTPUTS`, else `outputs`."""
    return Path(os.environ.get("DLRUN_OUTPUTS") or "outputs").absolute()


def all_runs() -> list[RunDir]:
    """Every run under the outputs folder, oldest first.

    Jobs of sweeps are included.
    """
    return [run for run, _ in in_order((run, _read_start(run)) for run in found_runs())]


def in_order(runs: Iterable[tuple[RunDir, float | None]]) -> list[tuple[RunDir, float | None]]:
    """Runs with the starts in their summaries, the oldest first."""
    return sorted(runs, key=lambda each: (*_started(each[0].path, each[1]), str(each[0].path)))


def all_sweeps() -> list[SweepDir]:
    """Every sweep with a manifest, oldest first."""
    found = [SweepDir(p.parent) for p in outputs().glob("sweeps/*/*/manifest.json")]
    return sorted(found, key=lambda sweep: (*_started(sweep.path, _read_start(sweep)), str(sweep.path)))


def read_each(places: Iterable[F], read: Callable[[F], R]) -> Iterator[tuple[F, R]]:
    """Yield each folder or file with what `read` makes of it.

    Damaged ones are left out, each with a line: one bad file stops nothing else.
    """
    for place in places:
        try:
            made = read(place)
        except DamagedFile as damage:
            output.warn(f"Left out: {damage.path} is damaged: {damage.found}.")
        else:
            yield place, made


def sweep_of(run: RunDir) -> SweepDir | None:
    """The sweep of a job; None for a single run."""
    return SweepDir(run.path.parent) if run.of_a_sweep else None


def find(reference: str, *, what: str = "run") -> RunDir:
    """Find a run by its folder, or the beginning of its id.

    `what` is the word for it in the error. Raises `UserError` if no run or several fit, or the run has links out of its
    folder.
    """
    run = locate(reference, what=what)
    check_files(run.path)
    return run


def locate(reference: str, *, what: str = "run") -> RunDir:
    """Find a run as `find` does, whatever links it has."""
    return follow_reuse(locate_folder(reference, what=what))


def locate_folder(reference: str, *, what: str = "run") -> Path:
    """Find the folder of a run or a job by its path, or the beginning of its id.

    That of a job that reuses another sweep's run is the job's own.
    """
    folder = Path(reference)
    if (folder / ".hydra").is_dir() or (folder / REUSED).is_file():
        return folder.absolute()
    # a reused job has no `.hydra` of its own, so that `found_runs` lacks it
    fitting = [run for run in found_runs() if _fits(run.id, reference)] or _reused_jobs(reference)
    if len(fitting) == 1:
        return fitting[0].path
    if (sweep := _sweep_of_all(fitting, reference)) is not None:
        raise UserError(_name_a_job(reference, sweep))
    runs = all_runs()
    if fitting:
        names = "\n  ".join(str(r.path) for r in runs if r in fitting) or "\n  ".join(str(r.path) for r in fitting)
        raise UserError(f"`{reference}` fits {len(fitting)} runs:\n  {names}\nGive more of the id, or the folder.")
    newest = "".join(f"\n  {r.id}  {r.path}" for r in runs[-5:])
    raise UserError(
        f"No {what} `{reference}`: it is neither the folder of a {what} nor the beginning of its id under {outputs()}."
        + (f"\nThe newest runs are:{newest}" if newest else "\nThere is no run yet: type `dlrun train`.")
        + ("\n`dlrun runs` lists them all." if what == "run" else "\n`dlrun runs [--sweeps]` lists them all.")
    )


def find_sweep(reference: str) -> SweepDir | None:
    """Find a sweep by its folder, or the beginning of its id.

    None if there is none. Raises `UserError` if several fit, or the sweep has links out of its folder.
    """
    sweep = locate_sweep(reference)
    if sweep is not None:
        check_files(sweep.path)
    return sweep


def locate_sweep(reference: str) -> SweepDir | None:
    """Find a sweep as `find_sweep` does, whatever links it has."""
    folder = Path(reference)
    if (folder / "manifest.json").is_file():
        return SweepDir(folder.absolute())
    fitting = [sweep for sweep in all_sweeps() if reference and sweep.id.startswith(reference)]
    if len(fitting) > 1:
        names = "\n  ".join(str(sweep.path) for sweep in fitting)
        raise UserError(f"`{reference}` fits {len(fitting)} sweeps:\n  {names}\nGive more of the id, or the folder.")
    return fitting[0] if fitting else None


def _sweep_of_all(fitting: list[RunDir], reference: str) -> SweepDir | None:
    """The sweep that `reference` names, if no run outside of it fits too."""
    with suppress(UserError):
        sweep = locate_sweep(reference)
        if sweep is not None and all(run.path.parent == sweep.path for run in fitting):
            return sweep
    return None


def _name_a_job(reference: str, sweep: SweepDir) -> str:
    selected = [job for selection in sweep.summary().selections for job in selection["jobs"]]
    job, remark = (selected[0], ", which is selected") if selected else (0, "")
    return f"`{reference}` is a sweep; name one of its runs, for example `{sweep.id}/{job}`{remark}."


def found_runs() -> list[RunDir]:
    """Every run under the outputs folder, in no order."""
    found = [*outputs().glob("runs/*/*/.hydra"), *outputs().glob("sweeps/*/*/*/.hydra")]
    return [RunDir(path.parent) for path in found]


def _read_start(folder: RunDir | SweepDir) -> float | None:
    with suppress(DamagedFile, OSError):
        return folder.summary().started
    return None


def _started(path: Path, started: float | None) -> tuple[float, float]:
    """Seconds since 1970 of the first start; then of the folder's own file, for starts within a second.

    The time in a folder's name is of a time zone that nobody knows: it counts only where the summary says nothing.
    """
    written = 0.0
    with suppress(OSError):
        written = (path / ".hydra" / "overrides.yaml").stat().st_mtime
    if started is not None:
        return started, written
    date, name = path.relative_to(outputs()).parts[1:3]
    with suppress(ValueError):
        return datetime.strptime(f"{date} {name.partition('-')[0]}", "%Y-%m-%d %H%M%S").timestamp(), written
    with suppress(OSError):
        written = written or path.stat().st_mtime
    return written, written


def _reused_jobs(reference: str) -> list[RunDir]:
    """The folders of reused jobs with this id: `k3x9/2`."""
    if "/" not in reference:
        return []
    jobs = [RunDir(note.parent) for note in outputs().glob(f"sweeps/*/*/*/{REUSED}")]
    return [job for job in jobs if _fits(job.id, reference)]


def _fits(id: str, reference: str) -> bool:
    """True if `reference` begins the id."""
    begun, slash, number = reference.partition("/")
    # a job's number is given in full: `k3x9/1` is not `k3x9/12`
    return id.startswith(begun) and (not slash or id.endswith(f"/{number}")) and bool(begun)
