"""Where configuration lies: the packaged `conf` folder, and the user's own in the current directory."""

from __future__ import annotations

import sys
from pathlib import Path


def packaged() -> Path:
    """Return dlrun's own `conf` folder: inside the package if installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def own() -> Path | None:
    """Return the user's `conf` folder in the current directory, or None if there is none but dlrun's own."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and not folder.samefile(packaged()) else None


def find_own_modules() -> None:
    """Let modules in the current directory be imported, after everything that is installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
