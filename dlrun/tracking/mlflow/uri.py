"""Where MLflow's store is: `MLFLOW_TRACKING_URI`, else a SQLite file beside the runs."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path

from dlrun.errors import UserError, did_you_mean
from dlrun.storage.files.cache import cache_root, default_root
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.escape import encodable
from dlrun.tracking.content.state import outputs_of
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hide_secrets
from dlrun.tracking.mlflow.names.token import read_token

# the kinds of store that MLflow opens itself, and those with a server before them
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
# the file of certificates that MLflow trusts instead of the system's
AUTHORITY = "MLFLOW_TRACKING_SERVER_CERT_PATH"
# the packages of database drivers, by the name of their module
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


def store_address(run: RunDir | SweepDir | None = None) -> Address:
    """The address of a run's or sweep's store.

    Raises `UserError` if `MLFLOW_TRACKING_URI` names a place that MLflow does not accept.
    """
    check_address()
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return Address(given or f"sqlite:///{plain_path(outputs_of(run))}/mlflow.db")


@contextmanager
def using(address: Address) -> Iterator[None]:
    """Have MLflow's own functions use a store within the context, for models and runs alike."""
    # by the environment, and put back: what `set_tracking_uri` writes there stays, and would name this store for other
    # folders, for uploaders that start later, and in place of the stamp of the folder's own store
    read_token()
    wanted = {"MLFLOW_TRACKING_URI": address.reveal(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def is_own(address: Address) -> bool:
    """True for the store of an outputs folder, which no MLFLOW_TRACKING_URI names."""
    return address.reveal() != os.environ.get("MLFLOW_TRACKING_URI")


def artifact_folder(run: RunDir | SweepDir | None = None) -> Path:
    """The folder of artifacts, for a store without a server."""
    outputs = outputs_of(run)
    return (outputs if is_encodable(outputs) else plain_path(outputs)) / "mlartifacts"


def has_server(address: Address) -> bool:
    # a server decides itself where artifacts go
    return address.dialect not in DATABASES


def sqlite_file(address: Address) -> Path | None:
    """The file of a SQLite store; None for others.

    >>> sqlite_file(Address("sqlite:////tmp/mlflow.db")), sqlite_file(Address("http://localhost:5000"))
    (PosixPath('/tmp/mlflow.db'), None)
    """
    match = re.fullmatch(r"sqlite(\+\w+)?:///([^?]+)(\?.*)?", address.reveal())
    return Path(match[2]).absolute() if match and match[2] != ":memory:" else None


def check_address() -> None:
    """Check `MLFLOW_TRACKING_URI` before anything is trained.

    Raises `UserError` if it is a folder (`file:` or a bare path) or of an unknown kind.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    # `databricks` and `uc` are whole URIs
    if not uri or uri in SERVERS:
        return
    address = Address(uri)
    kind = address.dialect
    if ":" not in uri or kind == "file":
        raise UserError(
            f"MLFLOW_TRACKING_URI is `{address}`: MLflow no longer keeps runs in plain folders.\n"
            "Give a database (sqlite:////absolute/path/mlflow.db, postgresql://…) or a server (http://host:5000),\n"
            "or type `unset MLFLOW_TRACKING_URI` for dlrun's own store in its outputs folder."
        )
    valid = (*DATABASES, *SERVERS)
    if kind not in valid and kind not in {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}:
        raise UserError(
            f"MLFLOW_TRACKING_URI is `{address}`: `{kind}:` is no kind of store that MLflow knows."
            f"{did_you_mean(kind, valid)}\nValid are {', '.join(valid)}; for example http://host:5000."
        )


def check_authority() -> None:
    """Raise `UserError` if the file of certificates that MLflow is to trust is missing."""
    file = os.environ.get(AUTHORITY, "")
    if file and Address(os.environ.get("MLFLOW_TRACKING_URI", "")).dialect == "https" and not Path(file).exists():
        raise UserError(f"{AUTHORITY} is `{file}`, which is not there. Set it to your authority's file (ca.pem).")


def check_driver() -> None:
    """Raise `UserError` if the database of `MLFLOW_TRACKING_URI` has no installed driver."""
    address = Address(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if address.dialect not in DATABASES or sqlite_file(address):
        return
    # a third of a second, for those who have such a database
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(address.reveal()).get_dialect().import_dbapi()
    except ImportError as error:
        raise UserError(f"MLFLOW_TRACKING_URI is `{address}`. {missing_driver(error)}") from None
    except (SQLAlchemyError, ValueError) as error:
        said = hide_secrets(str(error)).splitlines()[0]
        raise UserError(
            f"MLFLOW_TRACKING_URI is `{address}`, which is no address of a database: {said}\n"
            "For example postgresql://user:password@host:5432/mlflow."
        ) from None


def missing_driver(error: ImportError) -> str:
    """What to type for a database whose driver is not installed."""
    name = (error.name or "").partition(".")[0]
    if not name:
        return f"Its database has no driver here: {hide_secrets(str(error))}"
    package = PACKAGES.get(name, name)
    return f"Its database needs the package {name}, which is not installed.\nType `pip install {shlex.quote(package)}`."


def page(address: Address, view: str) -> str | None:
    """The address of a view; None without a server."""
    if not address.dialect.startswith("http"):
        return None
    return f"{str(address).partition('?')[0].rstrip('/')}/#/{view}"


def plain_path(folder: Path) -> Path:
    """The folder, by a path that an address can have."""
    if _is_plain(folder):
        return folder
    root = cache_root() if _is_plain(cache_root()) else default_root()
    alias = root / "stores" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    alias.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        alias.symlink_to(folder)
    return alias


def _is_plain(folder: Path) -> bool:
    # SQLAlchemy takes `?` for the beginning of options, and some of its versions decode `%`
    return is_encodable(folder) and not {"?", "%"} & {*str(folder)}


def is_encodable(folder: Path) -> bool:
    """Is the path UTF-8, as every address is?"""
    return encodable(str(folder)) == str(folder)
