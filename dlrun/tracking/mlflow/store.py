"""SQLite stores: created and migrated under a lock, by one process.

MLflow takes seconds to migrate a new database, and several processes that do it at once fail. So the cache has an
empty, migrated database for each version of MLflow, and a new store is a copy of it. A store's lock file holds the
version that the store was last migrated to, and the revision of its tables: while both are as noted, MLflow is not
imported.
"""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.storage.files import cache
from dlrun.storage.files.cache import cache_root
from dlrun.storage.files.locks import locked
from dlrun.tracking.mlflow import sqlite_statements as sql
from dlrun.tracking.mlflow.diagnosis import LaterStore
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.store_paths import follow_move
from dlrun.tracking.mlflow.uri import plain_path, sqlite_file


def prepare(address: Address, artifacts: Path) -> None:
    """Create a SQLite store, migrate it to this MLflow, or correct its paths after a move.

    Other stores are left alone. Raises `LaterStore`, `sqlite3.DatabaseError` for a damaged file, `UserError` for one
    with statements of its own, and `RuntimeError` if it cannot be migrated; a copy of it lies beside it then.
    """
    path = sqlite_file(address)
    if path is None:
        return
    installed = version("mlflow")
    path.parent.resolve().mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")) as lock:
        if not path.exists() or path.stat().st_size == 0:
            _create(path, installed, artifacts)
        lock.seek(0)
        if lock.read() != f"{installed} {_revision(path)}":
            _upgrade(path, installed)
            lock.seek(0)
            lock.truncate()
            lock.write(f"{installed} {_revision(path)}")
        # the store that MLFLOW_TRACKING_URI names may be of several outputs folders
        if path.resolve() == (artifacts.parent / "mlflow.db").resolve():
            _check_triggers(path, installed)
            follow_move(path, artifacts)


def _check_triggers(path: Path, installed: str) -> None:
    """Raise `UserError` for a trigger or a view that MLflow's stores lack: it could change what is read or written."""
    found, known = (_schema(file) for file in (path, _template(installed)))
    if odd := sorted(name for name, _ in found - known):
        raise UserError(
            f"The store {path} has the trigger or view `{odd[0]}`, which is none of MLflow's. Where do its runs come "
            f"from? `mv {path} {path}.other; dlrun sync --again` makes another store of the runs' folders."
        )


def _schema(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path, timeout=sql.WAIT)) as database:
        return {(str(name), str(text)) for name, text in database.execute(sql.SCHEMA)}


def creation_time(path: Path) -> int | None:
    """When a store was made, in milliseconds since 1970; None if it is not there, or damaged."""
    try:
        return _creation_time(path, path.stat().st_ino)
    except (OSError, sqlite3.Error):
        return None


@functools.lru_cache
def _creation_time(path: Path, inode: int) -> int | None:
    # a file that was removed and made again has another inode
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=sql.WAIT)) as database:
        row = database.execute(sql.MADE).fetchone()
    return int(row[0]) if row and row[0] is not None else None


def quiet_mlflow() -> None:
    """Set MLflow's environment variables, before its import."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # by default each call to a server that is away would retry for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _create(path: Path, installed: str, artifacts: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        shutil.copyfile(_template(installed), temporary)
        now = time.time_ns() // 1_000_000
        with closing(sqlite3.connect(temporary)) as database, database:
            database.execute(
                "UPDATE experiments SET artifact_location = ? || '/' || experiment_id,"
                " creation_time = ?, last_update_time = ?",
                (artifacts.as_uri(), now, now),
            )
        with closing(sqlite3.connect(temporary)) as database:
            # readers, such as MLflow's pages, do not wait for a writer then
            database.execute("PRAGMA journal_mode = WAL")
        # those of a store that was removed would be read into the new one
        for name in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _template(installed: str) -> Path:
    """The cached empty database of a version of MLflow."""
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / f"mlflow-{installed}.db"
    with locked(folder / f".mlflow-{installed}.lock"):
        checksum = template.with_suffix(".json")
        if not _is_intact(template, checksum):
            temporary = template.with_name(f".{template.name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            _open_once(temporary)  # seconds, once for each version
            temporary.replace(template)
            cache.save(checksum, {"crc32": cache.checksum_of(template)})
    return template


def _is_intact(template: Path, checksum: Path) -> bool:
    with suppress(OSError, ValueError, KeyError):
        return bool(cache.load(checksum)["crc32"] == cache.checksum_of(template))
    return False


def _open_once(path: Path) -> None:
    # opened by MLflow, a database is made and migrated
    quiet_mlflow()
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{plain_path(path.parent)}/{path.name}").search_experiments()


def _upgrade(path: Path, installed: str) -> None:
    """Migrate a database of another version of MLflow."""
    before = _revision(path)
    if before == _revision(_template(installed)):
        return
    if before is not None and not _is_known(before):
        raise LaterStore(
            f"The store {path} is of a later MLflow than {installed}: its tables have the revision {before}.\n"
            "Type `pip install mlflow==VERSION` with the version that it was last opened with, or set "
            "MLFLOW_TRACKING_URI to another store."
        )
    # a migration cannot be undone; the copy of an earlier try is of the whole store
    copy = path.with_name(f"{path.name}.before-mlflow-{installed}")
    if not copy.exists():
        _copy(path, copy)
    quiet_mlflow()
    import sqlalchemy
    from mlflow.store.db import utils

    upgrade: Any = utils._upgrade_db
    try:
        upgrade(sqlalchemy.create_engine(f"sqlite:///{path}"))
    except Exception as error:
        raise RuntimeError(f"{path} cannot be migrated to MLflow {installed}; it was copied to {copy}.") from error


def _is_known(revision: str) -> bool:
    """Whether the installed MLflow has a migration that leads to this revision."""
    package = find_spec("mlflow")
    assert package and package.origin
    # the name of each migration begins with its revision
    migrations = Path(package.origin).parent.glob("store/db_migrations/versions/*.py")
    return any(file.name.startswith(f"{revision}_") for file in migrations)


def _copy(path: Path, copy: Path) -> None:
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(path)) as database, closing(sqlite3.connect(temporary)) as target:
            database.backup(target)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path, timeout=sql.WAIT)) as database:
        try:
            row = database.execute(sql.REVISION).fetchone()
        except UnicodeDecodeError:  # of a damaged file, names of tables too
            raise sqlite3.DatabaseError("database disk image is malformed") from None
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return None
    return str(row[0]) if row else None
