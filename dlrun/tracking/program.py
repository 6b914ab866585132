"""Programs of dlrun that run as processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a module of dlrun."""
    # the current directory is the user's: a module of theirs must not stand in for one of MLflow's
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which the programs find dlrun, with `more` variables."""
    own = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH"), own) if p)
    return os.environ | {"PYTHONPATH": path} | more
