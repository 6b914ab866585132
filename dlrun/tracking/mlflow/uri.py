"""Where MLflow's store is: `MLFLOW_TRACKING_URI`, else a SQLite file beside the runs."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dlrun.errors import UserError, did_you_mean
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.state import outputs_of

# the kinds of store that MLflow opens itself, and those with a server before them
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")


def store_uri(run: RunDir | SweepDir | None = None) -> str:
    """The URI of a run's or sweep's store.

    Raises `UserError` if `MLFLOW_TRACKING_URI` names a place that MLflow does not accept.
    """
    check_uri()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{outputs_of(run) / 'mlflow.db'}"


def artifact_folder(run: RunDir | SweepDir | None = None) -> Path:
    """The folder of artifacts, for a store without a server."""
    return outputs_of(run) / "mlartifacts"


def has_server(uri: str) -> bool:
    # a server decides itself where artifacts go
    return _dialect(uri) not in DATABASES


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for others.

    >>> sqlite_file("sqlite:////tmp/mlflow.db"), sqlite_file("http://localhost:5000")
    (PosixPath('/tmp/mlflow.db'), None)
    """
    match = re.fullmatch(r"sqlite(\+\w+)?:///([^?]+)(\?.*)?", uri)
    return Path(match[2]).absolute() if match and match[2] != ":memory:" else None


def redact(uri: str) -> str:
    """The URI without a user's name and password.

    >>> redact("https://ada:secret@mlflow.example.org/x")
    'https://mlflow.example.org/x'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def check_uri() -> None:
    """Check `MLFLOW_TRACKING_URI` before anything is trained.

    Raises `UserError` if it is a folder (`file:` or a bare path) or of an unknown kind.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    # `databricks` and `uc` are whole URIs
    if not uri or uri in SERVERS:
        return
    kind = _dialect(uri)
    if ":" not in uri or kind == "file":
        raise UserError(
            f"MLFLOW_TRACKING_URI is `{uri}`: MLflow no longer keeps runs in plain folders.\n"
            "Give a database (sqlite:////absolute/path/mlflow.db, postgresql://…) or a server (http://host:5000),\n"
            "or type `unset MLFLOW_TRACKING_URI` for dlrun's own store in its outputs folder."
        )
    valid = (*DATABASES, *SERVERS)
    if kind not in valid and kind not in {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}:
        raise UserError(
            f"MLFLOW_TRACKING_URI is `{redact(uri)}`: `{kind}:` is no kind of store that MLflow knows."
            f"{did_you_mean(kind, valid)}\nValid are {', '.join(valid)}; for example http://host:5000."
        )


def page(uri: str, view: str) -> str | None:
    """The address of a view; None without a server."""
    return f"{redact(uri).rstrip('/')}/#/{view}" if has_server(uri) and uri.startswith("http") else None


def _dialect(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0].lower()
