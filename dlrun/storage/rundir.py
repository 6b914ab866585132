"""The folder of a run: every file's name, the lock that says it is alive, and its summary.

    outputs/runs/<date>/<time>-<name>-<id>/
        .hydra/  journal.jsonl  summary.json  checkpoints/{last,best}.pt  tokenizer.json  figures/  train.log

The process that trains holds an advisory lock on the folder (`held`), which the kernel gives back
however the process ends. So whether a run is alive is a fact about the machine, not a note that a
dying process would have to leave: a summary that says `running` without a holder is of a run that
was killed, and whoever looks first (`status`) writes that down.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from dlrun.errors import UserError

Status = Literal["running", "finished", "failed", "killed", "pruned"]

REUSED = "reused.json"
"""What names another sweep's run, in the folder of a job that it stands for."""


def outputs() -> Path:
    """Return the folder that holds all runs: `outputs` here, unless `DLRUN_OUTPUTS` moves it."""
    return Path(os.environ.get("DLRUN_OUTPUTS") or "outputs").absolute()


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """Return the random id that the folder's name ends with; for a job of a sweep, `SWEEP/n`."""
        job = not NAMED.fullmatch(self.path.name) and self.of_a_sweep
        return f"{ending(self.path.parent)}/{self.path.name}" if job else ending(self.path)

    @property
    def of_a_sweep(self) -> bool:
        """Return whether the run is a job of a sweep: its folder lies in one, or its summary says so."""
        return (self.path.parent / "manifest.json").exists() or self.summary().get("kind") == "job"

    @property
    def taken(self) -> bool:
        """Return whether a run has begun in the folder."""
        return self.journal.exists()

    def check_free(self) -> None:
        """Raise `UserError` if there is a run in the folder already."""
        if self.taken:
            raise UserError(
                f"{self.path} holds a run already. Type `dlrun resume {self.id}` to go on with it, or give another "
                f"folder (hydra.run.dir=…)."
            )

    @property
    def journal(self) -> Path:
        """Return the file of everything that was logged, append-only."""
        return self.path / "journal.jsonl"

    @property
    def tokenizer(self) -> Path:
        """Return what the tokenizer of a text is made of, as JSON."""
        return self.path / "tokenizer.json"

    @property
    def config(self) -> Path:
        """Return the composed configuration."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def figures(self) -> Path:
        """Return the folder of pictures."""
        return self.path / "figures"

    @property
    def log(self) -> Path:
        """Return what the run printed."""
        return self.path / "train.log"

    @property
    def last(self) -> Path:
        """Return the checkpoint that a resumed run starts from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """Return the weights of the best validation so far."""
        return self.path / "checkpoints" / "best.pt"

    def held(self) -> AbstractContextManager[None]:
        """Hold the folder while a process trains in it; raise `UserError` if another process holds it."""
        return hold(self.path, busy=f"{self.path} is in use: another process is training it.")

    def alive(self) -> bool:
        """Return whether a process is training in the folder now."""
        return is_held(self.path)

    def summary(self) -> dict[str, Any]:
        """Return the summary as it lies in the folder (empty before there is one)."""
        return read_summary(self.path)

    def update(self, change: Callable[[dict[str, Any]], None] | None = None, **values: Any) -> dict[str, Any]:
        """Change the summary under its lock and replace the file in one move; return what it says now."""
        return update_summary(self.path, change, **values)

    def status(self) -> Status:
        """Return the true status; a run that says `running` and is not alive becomes `killed`."""
        return true_status(self.path)


@contextmanager
def hold(folder: Path, *, busy: str) -> Iterator[None]:
    """Hold a folder's lock, which the kernel gives back however the process ends; raise `UserError` if it is held."""
    with (folder / ".lock").open("a") as file:
        # whoever looks whether the folder is held holds the lock too, for a moment
        if not wait_until(lambda: _taken(file), 0.5, poll=0.01):
            raise UserError(busy)
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)


_held: set[IO[str]] = set()
"""The locks that this process holds."""


def _let_go() -> None:
    # a forked process (a worker that reads data) shares its parent's locks, and may outlive it
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def is_held(folder: Path) -> bool:
    """Return whether a process holds the folder's lock now."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary as it lies in a folder (empty before there is one)."""
    with suppress(FileNotFoundError):
        return dict(json.loads((folder / "summary.json").read_text()))
    return {}


def update_summary(
    folder: Path, change: Callable[[dict[str, Any]], None] | None = None, **values: Any
) -> dict[str, Any]:
    """Change a folder's summary under its lock and replace the file in one move; return what it says now."""
    with (folder / ".summary.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        summary = read_summary(folder) | values
        if change:
            change(summary)
        # a line an entry: indented throughout it would take ten times as long
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in summary.items())
        write_atomically(folder / "summary.json", f"{{\n{lines}\n}}\n".encode())
    return summary


def true_status(folder: Path) -> Status:
    """Return the true status; a folder that says `running` and that nobody holds becomes `killed`."""
    status: Status = read_summary(folder).get("status", "killed")
    if status == "running" and not is_held(folder):
        # looked at again under the lock: the run may have ended between the two looks
        status = update_summary(folder, _bury)["status"]
    return status


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


NAMED = re.compile(r"\d+-.+-(\w+)")
"""How dlrun names a folder: time, name and a random id."""


def ending(folder: Path) -> str:
    """Return the random id that a folder's name ends with; of one that was named otherwise, its whole path.

    >>> ending(Path("/runs/2026-01-02/101112-mnist-kxabcdef")), ending(Path("/tmp/mine-a"))
    ('kxabcdef', '/tmp/mine-a')
    """
    match = NAMED.fullmatch(folder.name)
    return match[1] if match else str(folder)


def _bury(summary: dict[str, Any]) -> None:
    if summary["status"] == "running":
        summary["status"] = "killed"


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def all_runs() -> list[RunDir]:
    """Return every run under the outputs folder, oldest first, the jobs of sweeps included."""
    found = [*outputs().glob("runs/*/*/.hydra"), *outputs().glob("sweeps/*/*/*/.hydra")]
    return [RunDir(p.parent) for p in sorted(found, key=_begun)]


def standing_for(folder: Path) -> RunDir:
    """Return the run of a folder; of a job that was reused, the other sweep's run, if it is still there."""
    note = folder / REUSED
    run = RunDir(Path(json.loads(note.read_text())["run"])) if note.exists() else RunDir(folder)
    return run if run.path.is_dir() else RunDir(folder)


def _reused(reference: str) -> list[RunDir]:
    """Return the runs of reused jobs that a reference with a number, as k3x9/2, names."""
    if "/" not in reference:
        return []
    notes = outputs().glob(f"sweeps/*/*/*/{REUSED}")
    return [standing_for(note.parent) for note in notes if _fits(RunDir(note.parent).id, reference)]


def _begun(config: Path) -> tuple[str, str, int, str]:
    """Return what orders runs by their beginning: date and time of the folder's name, then its oldest file's."""
    date, folder = config.relative_to(outputs()).parts[1:3]
    # written once, when the run begins: the time in the name is of whole seconds
    written = config / "overrides.yaml"
    return date, folder.partition("-")[0], written.stat().st_mtime_ns if written.exists() else 0, str(config)


def _fits(id: str, reference: str) -> bool:
    """Return whether a reference begins an id; the number of a sweep's job must be given in full."""
    begun, slash, number = reference.partition("/")
    return id.startswith(begun) and (not slash or id.endswith(f"/{number}")) and bool(begun)


def find(reference: str, *, what: str = "run") -> RunDir:
    """Return the run that `reference` names: a folder, or an unambiguous beginning of its id.

    `what` says in the error what was looked for. Raises `UserError` if no run or several fit.
    """
    folder = Path(reference)
    if (folder / ".hydra").is_dir() or (folder / REUSED).is_file():
        return standing_for(folder.absolute())
    runs = all_runs()
    fitting = [r for r in runs if _fits(r.id, reference)] or _reused(reference)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = "\n  ".join(str(r.path) for r in fitting)
        raise UserError(f"`{reference}` fits {len(fitting)} runs:\n  {names}\nGive more of the id, or the folder.")
    newest = "".join(f"\n  {r.id}  {r.path}" for r in runs[-5:])
    raise UserError(
        f"No {what} `{reference}`: it is neither the folder of a {what} nor the beginning of its id under {outputs()}."
        + (f"\nThe newest runs are:{newest}" if newest else "\nThere is no run yet: type `dlrun train`.")
        + ("\n`dlrun runs` lists them all." if what == "run" else "\n`dlrun runs [--sweeps]` lists them all.")
    )


def wait_until(condition: Callable[[], bool], seconds: float, poll: float = 0.05) -> bool:
    """Wait until `condition` holds, at most `seconds`; return whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True
