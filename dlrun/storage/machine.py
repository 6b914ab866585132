"""Where a run comes from: git's commit, versions, the command line."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dlrun.errors import UserError
from dlrun.storage.summary import Git

PACKAGES = ("dlrun", "torch", "hydra-core", "numpy")

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


@dataclass(frozen=True)
class Machine:
    """Git's commit, the packages' versions and the command line.

    A launcher finds them once for all its jobs.
    """

    git: Git
    versions: Mapping[str, str]
    command: str


def inspect() -> Machine:
    """Ask git and the installed packages.

    It takes some 30 ms, a third of a short job.
    """
    return Machine(_git(), _versions(), command_line())


def command_line() -> str:
    """The command line, as it would be typed again."""
    arguments = [*_typed.get()] or sys.argv[1:]
    return shlex.join(["dlrun", *arguments]) if arguments else Path(sys.argv[0]).name


@contextmanager
def as_typed(*arguments: str) -> Iterator[None]:
    """Take these arguments for the command line: a call from Python has none of its own."""
    token = _typed.set(arguments)
    try:
        yield
    finally:
        _typed.reset(token)


def check_single(command: str) -> None:
    """Raise `UserError` in processes that torchrun has started together."""
    size, rank = (os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK"))
    copies = max(int(size) if size.isdecimal() else 1, int(rank) + 1 if rank.isdecimal() else 1)
    if copies > 1:
        raise UserError(
            f"WORLD_SIZE={copies}: torchrun would start {copies} copies of this command, and only `dlrun train` and "
            f"`dlrun resume` of one run are for several processes. Type `{command}` without torchrun. If another "
            "program has set WORLD_SIZE or RANK, `unset WORLD_SIZE RANK`."
        )


def _git() -> Git:

    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=5)
        return done.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    # no git, no checkout, or no answer in 5 s
    except (OSError, subprocess.SubprocessError):
        return {}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a machine that carries the package without its metadata
            continue
    return found
