"""dlrun's own `conf`, and the user's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from pathlib import Path

RECORDS = (".hydra", "summary.json", "manifest.json")
"""What the folder of a run or sweep holds. Modules and configurations in it are not the user's own."""

_foreign: set[Path] = set()


def package_folder() -> Path:
    """dlrun's own `conf` folder."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"  # of an installed package; in a checkout it lies beside
    return inside if inside.is_dir() else package.parent / "conf"


def holds_runs(folder: Path) -> bool:
    """True for a folder of a run or sweep, which may come from somebody else."""
    return any((folder / name).exists() for name in RECORDS)


@functools.cache
def came_with_runs(folder: Path) -> bool:
    """True for a folder of a run or sweep, or one that has some in it.

    Whoever sent them may have put modules there. The current directory is not asked: it has the user's own runs.
    """
    places = ("*/", "*/*/", "runs/*/*/", "*/runs/*/*/", "sweeps/*/*/*/", "*/sweeps/*/*/*/")
    return holds_runs(folder) or any(next(folder.glob(f"{place}.hydra"), None) for place in places)


def mark_foreign(folders: Iterable[Path]) -> None:
    """Note folders of configurations that may come from somebody else, and modules in them too.

    One around the current directory is no such folder: it has the user's own modules.
    """
    _foreign.update(folder for folder in map(Path.resolve, folders) if not Path.cwd().is_relative_to(folder))


def is_received(folder: Path) -> bool:
    """True for a folder that may come from somebody else: it has runs or foreign configurations."""
    return any(folder.is_relative_to(each) for each in _foreign) or came_with_runs(folder)


def user_folder() -> Path | None:
    """The user's `./conf`, if there is one."""
    folder = Path.cwd() / "conf"
    if holds_runs(folder.parent):
        return None
    # in a checkout, `./conf` is dlrun's own
    return folder if folder.is_dir() and not folder.samefile(package_folder()) else None


def enable_user_modules() -> None:
    """Make modules here importable, after all installed ones."""
    here = str(Path.cwd())
    if here not in sys.path and not holds_runs(Path.cwd()):
        sys.path.append(here)
