"""Links, hard links, pipes and devices in a folder that may come from somebody else."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dlrun.errors import UserError


def check_files(folder: Path) -> None:
    """Raise `UserError` for a link that leads out of a folder, and for a pipe or a device in it.

    A folder of runs may come from somebody else: its links could have any file read, sent or written to, and its pipes
    could have a reader wait for ever.
    """
    for path in _pipes(folder):
        raise UserError(f"{path} is a pipe or a device, which no run has. Delete it.")
    for link in links_out(folder):
        raise UserError(
            f"{link} is a link out of its folder, to {os.path.realpath(link)}. Links of runs are not followed: "
            f"put the file itself there, or delete the link."
        )


def links_out(folder: Path) -> Iterator[Path]:
    """The links in a folder that lead out of it."""
    for here, folders, names in os.walk(folder):
        for path in (Path(here, name) for name in (*folders, *names)):
            if path.is_symlink() and leads_out(path, folder):
                yield path


def is_shared(file: Path) -> bool:
    """True if a file has another name too, a hard link: it may be a file of elsewhere."""
    with suppress(OSError):
        return file.stat().st_nlink > 1 and file.is_file()
    return False


def leads_out(path: Path, folder: Path) -> bool:
    """True if a path, its links followed, lies outside of the folder."""
    # `realpath` takes a link to itself, which `Path.resolve` does not
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _pipes(folder: Path) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        for path in (Path(here, name) for name in names):
            with suppress(FileNotFoundError):  # of a run in training, files come and go
                mode = path.lstat().st_mode
                if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    yield path


def remove_folder(folder: Path) -> None:
    """Delete a folder, and what its links lead to not."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
