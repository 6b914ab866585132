"""The folder that a tracker's run belongs to: a copy of a folder has the same id."""

from __future__ import annotations

import glob
import socket
from collections.abc import Mapping
from pathlib import Path

from dlrun.storage.rundir import outputs_above

FOLDER_TAGS = ("dlrun.folder", "dlrun.hostname")
"""The tags that `other_owner` reads."""


def other_owner(tags: Mapping[str, str], folder: Path, *, local: bool) -> Path | None:
    """The folder named in a run's tags, if the run is not `folder`'s.

    A folder that is gone was moved here; on another machine, whose folders are not to be seen, only in a `local` store.
    """
    named = tags.get("dlrun.folder")
    if named is None or Path(named) == folder:
        return None
    elsewhere = not local and tags.get("dlrun.hostname") != socket.gethostname()
    there = Path(named)
    if not elsewhere and (not there.is_dir() or there.samefile(folder)):
        return None
    return there


def twin(folder: Path) -> Path | None:
    """Another folder of the same name in an outputs folder."""
    outputs = outputs_above(folder)
    if outputs is None:
        return None
    kind, _, *rest = folder.relative_to(outputs).parts
    pattern = "/".join([kind, "*", *map(glob.escape, rest)])
    return next((path for path in outputs.glob(pattern) if path != folder and path.is_dir()), None)
