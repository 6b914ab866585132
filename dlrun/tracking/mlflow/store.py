"""SQLite stores: created and migrated once, under a lock, by one process.

MLflow takes seconds to migrate a new database, and several processes that do it at once fail. So the cache has an
empty, migrated database for each version of MLflow, and a new store is a copy of it. A store's lock file holds the
version that the store was last migrated to: while that is the installed one, MLflow is not imported.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from dlrun.storage import cache
from dlrun.storage.cache import cache_root
from dlrun.tracking.mlflow.uri import sqlite_file


def prepare(uri: str, artifacts: Path) -> None:
    """Create a SQLite store, or migrate it to this MLflow.

    Other stores are left alone. Raises `RuntimeError` if it cannot be migrated; a copy of it lies beside it then.
    """
    path = sqlite_file(uri)
    if path is None:
        return
    installed = version("mlflow")
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path.with_name(f".{path.name}.lock")) as lock:
        new = not path.exists() or path.stat().st_size == 0
        lock.seek(0)
        if not new and lock.read() == installed:
            return
        if new:
            _create(path, installed, artifacts)
        else:
            _upgrade(path, installed)
        lock.seek(0)
        lock.truncate()
        lock.write(installed)


@contextmanager
def hold_lock(path: Path) -> Iterator[IO[str]]:
    """Wait for a file's lock, and hold it."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


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
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _template(installed: str) -> Path:
    """The cached empty database of a version of MLflow."""
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / f"mlflow-{installed}.db"
    with hold_lock(folder / f".mlflow-{installed}.lock"):
        checksum = template.with_suffix(".json")
        if not _is_intact(template, checksum):
            temporary = template.with_name(f".{template.name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            _open_once(temporary)  # seconds, once for each version
            temporary.replace(template)
            cache.write_json(checksum, {"crc32": cache.checksum_of(template)})
    return template


def _is_intact(template: Path, checksum: Path) -> bool:
    with suppress(OSError, ValueError, KeyError):
        return bool(cache.read_json(checksum)["crc32"] == cache.checksum_of(template))
    return False


def _open_once(path: Path) -> None:
    # opened by MLflow, a database is made and migrated
    quiet_mlflow()
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()


def _upgrade(path: Path, installed: str) -> None:
    """Migrate a database of another version of MLflow."""
    if _revision(path) == _revision(_template(installed)):
        return
    # a migration cannot be undone
    copy = path.with_name(f"{path.name}.before-mlflow-{installed}")
    with closing(sqlite3.connect(path)) as database, closing(sqlite3.connect(copy)) as target:
        database.backup(target)
    quiet_mlflow()
    import sqlalchemy
    from mlflow.store.db import utils

    upgrade: Any = utils._upgrade_db
    try:
        upgrade(sqlalchemy.create_engine(f"sqlite:///{path}"))
    except Exception as error:
        raise RuntimeError(f"{path} cannot be migrated to MLflow {installed}; it was copied to {copy}.") from error


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as database:
        try:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return str(row[0]) if row else None
