"""dlrun's own `conf`, and the user's."""

from __future__ import annotations

import sys
from pathlib import Path


def package_folder() -> Path:
    """dlrun's own `conf` folder."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"  # of an installed package; in a checkout it lies beside
    return inside if inside.is_dir() else package.parent / "conf"


def user_folder() -> Path | None:
    """The user's `./conf`, if there is one."""
    folder = Path.cwd() / "conf"
    # in a checkout, `./conf` is dlrun's own
    return folder if folder.is_dir() and not folder.samefile(package_folder()) else None


def enable_user_modules() -> None:
    """Make modules here importable, after all installed ones."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
