"""The absolute paths in the SQLite store of an outputs folder: of artifacts, and of the runs' folders.

The store may have come with runs of somebody else, and must not say where files are written or sent. A store that
MLFLOW_TRACKING_URI names is the user's choice.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dlrun.errors import UserError
from dlrun.storage.files.links import leads_out
from dlrun.tracking.mlflow import sqlite_statements as sql


def follow_move(path: Path, artifacts: Path) -> None:
    """Correct the paths of a store whose outputs folder was moved or copied.

    `artifacts` is the folder of artifacts as it lies now.
    """
    with closing(sqlite3.connect(path, timeout=sql.WAIT, isolation_level=None)) as database:
        # that of the default experiment tells where the store was opened before
        row = database.execute(sql.DEFAULT_PLACE).fetchone()
        before = _folder(row[0]) if row else None
        if before is None or before.name != artifacts.name or _is_same(before, artifacts):
            return
        database.execute("BEGIN IMMEDIATE")
        tables = dict(database.execute(sql.TABLES))
        pairs = [(before.as_uri(), artifacts.as_uri()), (str(before), str(artifacts))]
        for table, column in sql.PLACES:
            for old, new in pairs if column in tables.get(table, "") else ():
                database.execute(sql.MOVE.format(table=table, column=column), {"old": f"{old}/", "new": f"{new}/"})
        folders = {"old": f"{before.parent}/", "new": f"{artifacts.parent}/"}
        database.execute(sql.MOVE_TAGS, folders)
        database.execute("COMMIT")


def check_links(path: Path) -> None:
    """Raise `UserError` if a store, or a file that SQLite keeps beside it, is a link to elsewhere."""
    for file in (path.with_name(path.name + ending) for ending in ("", "-wal", "-shm", "-journal")):
        if file.is_symlink() and leads_out(file, path.parent):
            raise UserError(
                f"The store {file} is a link out of its folder, and is not followed. If you made it, type "
                f"`export MLFLOW_TRACKING_URI=sqlite:///{path.resolve()}`."
            )


def check_location(location: str, artifacts: Path, path: Path) -> None:
    """Raise `UserError` if artifacts would lie outside of their folder: written elsewhere, or sent to somebody."""
    parts = urlsplit(location)
    local = parts.scheme in ("", "file") and parts.netloc in ("", "localhost") and not (parts.query or parts.fragment)
    place = Path(url2pathname(parts.path) if parts.scheme else parts.path)
    if not local or not place.is_absolute() or leads_out(place, artifacts):
        raise UserError(
            f"The store {path} keeps files of runs at {location}, not in {artifacts}. If you chose that, type "
            f"`export MLFLOW_TRACKING_URI=sqlite:///{path}`; else `mv {path} {path}.other; dlrun sync --again`."
        )


def location_of(path: Path, experiment_id: str) -> str | None:
    """The location of an experiment's artifacts."""
    with closing(sqlite3.connect(path, timeout=sql.WAIT)) as database:
        row = database.execute(sql.PLACE, (experiment_id,)).fetchone()
    return str(row[0]) if row else None


def _folder(location: str) -> Path | None:
    """The folder of artifacts that a default experiment's location names."""
    parts = urlsplit(location)
    return Path(url2pathname(parts.path)).parent if parts.scheme == "file" and not parts.netloc else None


def _is_same(one: Path, other: Path) -> bool:
    # by another path, such as a link or a mount: the old one leads there still
    return one == other or (one.parent.exists() and other.parent.exists() and one.parent.samefile(other.parent))
