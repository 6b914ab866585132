"""The folder of a run: its files, its lock, its summary.

    outputs/runs/<date>/<time>-<name>-<id>/
        .hydra/  journal.jsonl  summary.json  checkpoints/{last,best}.pt  learned.pt  tokenizer.json  figures/
        train.log

The process that trains holds a lock on the folder, which the kernel frees however the process ends. So no dying
process need leave a note: a summary that says `running` while nobody holds the folder is of a killed run, and the
first `status()` writes that into it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from dlrun.errors import UserError
from dlrun.storage import summary
from dlrun.storage.files import locks
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.links import leads_out
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.summary import Reused, Status, Summary

REUSED = "reused.json"
"""In the folder of a job that another sweep has run: names that run."""

NAMED = re.compile(r"\d+-.+-(\w+)")
"""How dlrun names a folder: time, name and a random id."""


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The random id in the folder's name; of a job, `SWEEP/n`."""
        job = not NAMED.fullmatch(self.path.name) and self.of_a_sweep
        return f"{id_of(self.path.parent)}/{self.path.name}" if job else id_of(self.path)

    @property
    def of_a_sweep(self) -> bool:
        # a foreign launcher writes no manifest: its jobs say it themselves
        return (self.path.parent / "manifest.json").exists() or self.summary().kind == "job"

    def check_free(self) -> None:
        """Raise `UserError` if a run has begun in the folder."""
        if self.journal.exists():
            raise UserError(
                f"{self.path} holds a run already. Type `dlrun resume {self.id}` to go on with it, or give another "
                f"folder (hydra.run.dir=…)."
            )

    def check_writable(self, advice: str) -> None:
        """Raise `UserError` with `advice` if this user may only read the folder."""
        for path in (self.path, self.path / "summary.json", self.journal):
            if path.exists() and not os.access(path, os.W_OK):
                raise UserError(f"{path} may not be written. {advice}")

    @property
    def journal(self) -> Path:
        """Every logged point and event, append-only."""
        return self.path / "journal.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of a text, as JSON."""
        return self.path / "tokenizer.json"

    @property
    def config(self) -> Path:
        """The composed configuration."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def log(self) -> Path:
        """Everything that the run printed."""
        return self.path / "train.log"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the best validation so far."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def before_nan(self) -> Path:
        """The state before the step whose loss was no finite number, once it was taken again."""
        return self.path / "checkpoints" / "before_nan.pt"

    @property
    def learned(self) -> Path:
        """Keys of the samples that the weights have learned from."""
        return self.path / "learned.pt"

    def hold(self) -> AbstractContextManager[None]:
        """Hold the folder while training in it.

        Raises `UserError` if another process does.
        """
        return locks.hold(self.path, busy=f"{self.path} is in use: another process is training it.")

    def alive(self) -> bool:
        """True while a process trains in the folder."""
        return locks.is_held(self.path)

    def summary(self) -> Summary:
        """The summary; without any key before the run has begun."""
        return summary.read(self.path, Summary)

    def edit_summary(self) -> AbstractContextManager[Summary]:
        """Change the summary under its lock.

        Use it as `with run.edit_summary() as summary: …`.
        """
        return summary.edit(self.path, Summary)

    def status(self) -> Status:
        """The true status: a dead `running` run becomes `killed`."""
        return summary.true_status(self.path)


def id_of(folder: Path) -> str:
    """The random id in a folder's name, else the whole path.

    >>> id_of(Path("/runs/2026-01-02/101112-mnist-kxabcdef")), id_of(Path("/tmp/mine-a"))
    ('kxabcdef', '/tmp/mine-a')
    """
    # a folder of the user's (hydra.run.dir=…) has no id: its path is one
    match = NAMED.fullmatch(folder.name)
    return match[1] if match else str(folder)


def outputs_above(folder: Path) -> Path | None:
    """The outputs folder that a run or sweep lies in; None elsewhere."""
    return next((parent.parent for parent in folder.parents if parent.name in ("runs", "sweeps")), None)


def read_reused(folder: Path) -> Reused:
    """The `reused.json` of a job's folder.

    Raises `DamagedFile`.
    """
    advice = f"Delete {folder}: the job is run again when the sweep is resumed."
    return summary.read_record(folder / REUSED, Reused, advice=advice)


def write_reused(folder: Path, run: RunDir) -> None:
    """Let another sweep's `run` stand for the job of this folder."""
    folder.mkdir(exist_ok=True)
    note, outputs = Reused(), outputs_above(folder)
    # relative to an outputs folder that has both, so that it may be moved
    inside = outputs is not None and outputs == outputs_above(run.path)
    note.run = run.path.relative_to(outputs).as_posix() if outputs and inside else str(run.path)
    note.identity = run.summary().identity
    write_atomically(folder / REUSED, dumps(note.to_dict()).encode())


def follow_reuse(folder: Path, identity: str | None = None) -> RunDir:
    """The run in a job's folder.

    Of a reused job it is the other sweep's run, if that is still there and has the job's `identity`. Raises
    `DamagedFile`.
    """
    run = _reused_run(folder, identity)
    return run if isinstance(run, RunDir) else RunDir(folder)


def lost_reuse(folder: Path, identity: str | None = None) -> str:
    """Why a reused run does not stand for a job any more; empty if it does.

    Raises `DamagedFile`.
    """
    found = _reused_run(folder, identity)
    return found if isinstance(found, str) else ""


def _reused_run(folder: Path, identity: str | None) -> RunDir | str | None:
    """The reused run, or why it does not count; None for a job that reuses none."""
    if not (folder / REUSED).exists():
        return None
    note = read_reused(folder)
    wanted = identity or note.identity
    outputs = outputs_above(folder)
    there = [RunDir(path) for path in _places(folder, Path(note.run)) if _is_run(path)]
    for run in there:
        known = run.summary().identity
        if known and known == wanted:
            return run
        # runs of an older dlrun may lack it; a note of somebody else could name any folder of the machine
        if (not wanted or not known) and outputs is not None and not leads_out(run.path, outputs):
            return run
    return f"the run that it reused, {note.run}, {'is another one now' if there else 'is gone'}"


def _is_run(folder: Path) -> bool:
    # the path is a text of a file: too long, or with a zero byte, it is none
    with suppress(OSError, ValueError):
        return (folder / ".hydra").is_dir()
    return False


def _places(folder: Path, written: Path) -> Iterator[Path]:
    """Where a reused run may lie, the likeliest first."""
    outputs = outputs_above(folder)
    old = outputs_above(written) if written.is_absolute() else Path()
    # an absolute path may be of before the outputs folder was moved, or copied
    if outputs is not None and old is not None:
        yield outputs / written.relative_to(old)
    if written.is_absolute():
        yield written
    if outputs is None:
        return
    named = NAMED.fullmatch(written.parent.name)
    yield from outputs.glob(f"sweeps/*/*-{named[1]}/{written.name}") if named and written.name.isdigit() else ()
