"""Why a store refuses, and what to type, for the errors that go away only if somebody acts."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator

from dlrun.errors import DlrunError
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.answers import explain_answer, explain_tls, status_of
from dlrun.tracking.mlflow.names.file_stores import explain_files
from dlrun.tracking.mlflow.names.secrets import message
from dlrun.tracking.mlflow.uri import has_server, missing_driver, sqlite_file

# what MLflow and its migrations say of a database of another version
OTHER_TABLES = ("out-of-date database schema", "Can't locate revision")
# packages whose errors are those of a connection or a store
WAYS = {"requests", "urllib3", "botocore", "boto3", "sqlalchemy", "sqlite3"}
# what PostgreSQL and MySQL say of a wrong login or name
NO_ENTRY = ("authentication failed", "Access denied for user", "Unknown database")


class LaterStore(RuntimeError):
    """The store's tables are of a later MLflow than the installed one."""


def explain(error: BaseException, address: Address) -> str | None:
    """What is wrong with the store, and what to type; None if it may only be away."""
    for cause in _causes(error):
        if isinstance(cause, DlrunError | LaterStore):
            return str(cause)
        if found := explain_files(cause):
            return f"The store is {address}. {found}"
        if isinstance(cause, ImportError):
            return f"The store is {address}. {missing_driver(cause)}"
        if isinstance(cause, PermissionError):
            place = cause.filename or f"The store {address}"
            return f"{place} may not be used: {cause.strerror}. Check the permissions of it and of its folder."
        if isinstance(cause, sqlite3.Error) and (found := _of_file(cause, address)):
            return found
        if has_server(address) and (found := explain_tls(cause, address) or explain_answer(cause, address)):
            return found
        if any(words in str(cause) for words in OTHER_TABLES):
            return (
                f"The store {address} has the tables of another MLflow than the installed one: {message(cause, 200)}\n"
                "Install the version of its other users, or type `mlflow db upgrade ADDRESS` if the store is older."
            )
        if any(words in str(cause) for words in NO_ENTRY):
            return f"The store {address} refuses: {message(cause, 300)}"
    return None


def is_of_store(error: BaseException) -> bool:
    """Whether a store, its login or the way to it is at fault, and not what is sent."""
    return any(
        type(cause).__module__.partition(".")[0] in WAYS or status_of(cause) in (401, 403) for cause in _causes(error)
    )


def _of_file(error: sqlite3.Error, address: Address) -> str | None:
    file = sqlite_file(address)
    if type(error) is sqlite3.DatabaseError:  # "file is not a database", "database disk image is malformed"
        old, new = shlex.quote(str(file)), shlex.quote(f"{file}.damaged")
        return (
            f"The store {file} is damaged: {error}.\n"
            f"Restore it from a backup, or type `mv {old} {new}; dlrun sync --again`: "
            "the run folders have all that is needed to fill a new one."
        )
    said = str(error)
    if "readonly" in said or "unable to open" in said:
        return f"The store {file} cannot be opened for writing: {error}. Check the permissions of it and of its folder."
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what SQLAlchemy wraps."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [getattr(cause, "orig", None), cause.__cause__, cause.__context__]
