"""MLflow for a group, without containers: PostgreSQL, logins and TLS, from programs that are installed.

    python deploy/mlflow/serve.py FOLDER

The database, the files of runs, the administrator's password and the certificates are in FOLDER; the next start finds
them there. Ctrl-C or SIGTERM ends both servers. It needs PostgreSQL (`apt-get install postgresql`) and, in Python's
environment, `pip install 'mlflow[auth]' psycopg2-binary`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# PostgreSQL refuses to run as root; Debian's package makes this user
DATABASE_USER = "postgres"
DEBIAN = Path("/usr/lib/postgresql")
DATABASES = ("mlflow", "logins")
LOGINS = """[mlflow]
default_permission = {permission}
database_uri = {database}
admin_username = admin
# the hash of a password takes longer than all else of a call; an old one is refused by all processes after so long
auth_cache_ttl_seconds = 30
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
LONGEST = 90
"""Characters of the folder of a socket: with the socket's name the system takes 107."""
PATIENCE = 120.0
"""Seconds in which a server must have started."""


@dataclass(frozen=True)
class Place:
    """The folder of a server, and what is where in it."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "database"

    @property
    def socket(self) -> Path:
        """The folder of PostgreSQL's socket: who may enter it needs no password."""
        return self.folder / "socket"

    @property
    def tls(self) -> Path:
        return self.folder / "tls"

    def address(self, database: str) -> str:
        user = f"{DATABASE_USER}@" if os.geteuid() == 0 else ""
        return f"postgresql://{user}/{database}?host={self.socket}"

    def secret(self, name: str) -> str:
        """A random text, made once, which only its owner can read."""
        file = self.folder / name
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(24))
        return file.read_text().strip()


def programs_of_postgres() -> Path:
    """The folder of PostgreSQL's programs."""
    # Debian keeps them off PATH, a folder a version
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda file: float(file.parents[1].name))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    if not found:
        sys.exit("PostgreSQL is not installed: type `apt-get install postgresql`, or use compose.yaml.")
    return found[-1].parent


def check_packages() -> None:
    wanted = {"mlflow": "mlflow[auth]", "flask_wtf": "mlflow[auth]", "psycopg2": "psycopg2-binary"}
    if missing := {package for module, package in wanted.items() if importlib.util.find_spec(module) is None}:
        sys.exit(f"Packages are missing here: type `pip install {' '.join(repr(name) for name in sorted(missing))}`.")


def start_postgres(place: Place) -> subprocess.Popen[bytes]:
    """Start PostgreSQL, reachable by its socket alone."""
    programs = programs_of_postgres()
    user = {"user": DATABASE_USER, "group": DATABASE_USER} if os.geteuid() == 0 else {}
    if user and subprocess.run(["test", "-x", place.folder], **user).returncode:
        sys.exit(f"The user {DATABASE_USER} may not enter {place.folder}: choose one whose parents all may enter.")
    for folder in (place.database, place.socket):
        folder.mkdir(mode=0o700, exist_ok=True)
        if user:
            shutil.chown(folder, **user)
    if not (place.database / "PG_VERSION").exists():
        made = [programs / "initdb", "--pgdata", place.database, "--auth=trust", "--encoding=UTF8", "--no-locale"]
        _call(made, **user)
    with (place.folder / "database.log").open("ab") as log:
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={place.socket}"]
        command = [programs / "postgres", "-D", place.database, *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True, **user)
    ready = [programs / "pg_isready", "--quiet", "--host", place.socket]
    _wait(server, lambda: subprocess.run(ready).returncode == 0, place.folder / "database.log")
    return server


def make_databases(place: Place) -> None:
    """Make the databases that are not there."""
    programs = programs_of_postgres()
    login = ["--host", place.socket, *(["--username", DATABASE_USER] if os.geteuid() == 0 else [])]
    asked = ["--dbname", "postgres", "--no-align", "--tuples-only", "--command", "SELECT datname FROM pg_database"]
    there = _call([programs / "psql", *login, *asked]).split()
    for name in DATABASES:
        if name not in there:
            _call([programs / "createdb", *login, name])


def make_certificates(place: Place, names: Sequence[str]) -> list[str]:
    """An authority of one's own, and a certificate of it for these names; returns uvicorn's options."""
    place.tls.mkdir(mode=0o700, exist_ok=True)
    authority, authority_key = place.tls / "ca.pem", place.tls / "ca.key"
    key, certificate, request = place.tls / "server.key", place.tls / "server.pem", place.tls / "server.csr"
    days = ["-days", "825"]
    if not authority.exists():
        subject = ["-subj", "/CN=MLflow's authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        new = ["-newkey", "rsa:2048", "-nodes", "-keyout", authority_key, "-out", authority]
        _call(["openssl", "req", "-x509", *new, *days, *subject])
    listed = ",".join(f"{'IP' if name.replace('.', '').isdigit() else 'DNS'}:{name}" for name in names)
    _call(
        ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={names[0]}"]
    )
    extensions = place.tls / "extensions"
    extensions.write_text(f"subjectAltName={listed}\nauthorityKeyIdentifier=keyid\n")
    signer = ["-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-extfile", extensions]
    _call(["openssl", "x509", "-req", "-in", request, "-out", certificate, *days, *signer])
    return ["--ssl-keyfile", str(key), "--ssl-certfile", str(certificate)]


def start_mlflow(place: Place, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start MLflow's server; it answers when this returns."""
    logins = place.folder / "logins.ini"
    logins.write_text(LOGINS.format(permission=options.permission, database=place.address("logins").replace("%", "%%")))
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": place.address("mlflow"),
        "MLFLOW_AUTH_CONFIG_PATH": str(logins),
        # taken at the first start; later the administrator changes it as any user does
        "MLFLOW_AUTH_ADMIN_PASSWORD": place.secret("admin.password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": place.secret("session.key"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", options.host, "--port", str(options.port), "--workers", str(options.workers)]
    command += ["--artifacts-destination", options.artifacts or (place.folder / "artifacts").as_uri()]
    if options.tls:
        named = [*options.tls, "localhost", "127.0.0.1"]
        # by default it answers to this machine's and private addresses alone
        command += ["--allowed-hosts", ",".join(pattern for name in named for pattern in (name, f"{name}:*"))]
        command += ["--uvicorn-opts", " ".join(make_certificates(place, options.tls))]
    with (place.folder / "mlflow.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    _wait(server, lambda: _answers(options), place.folder / "mlflow.log")
    return server


def end(server: subprocess.Popen[bytes], number: int) -> None:
    """End a server and its workers."""
    if server.poll() is None:
        (os.kill if number == signal.SIGINT else os.killpg)(server.pid, number)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0: reachable from other machines (default: from none)"
    )
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2, help="MLflow's processes, each some 300 MB (default: 2)")
    parser.add_argument("--tls", nargs="+", metavar="NAME", help="https with an authority of its own, for these names")
    parser.add_argument("--artifacts", metavar="URI", help="for example s3://bucket (default: a folder in FOLDER)")
    permission = {"choices": ("READ", "EDIT", "MANAGE", "NO_PERMISSIONS"), "default": "EDIT"}
    parser.add_argument("--permission", **permission, help="of users for others' experiments (default: EDIT)")
    options = parser.parse_args(argv)
    check_packages()
    place = Place(options.folder.absolute())
    if len(str(place.socket)) > LONGEST:
        sys.exit(
            f"{place.folder} is too long for the path of a socket: give a folder of at most {LONGEST - 7} characters."
        )
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((options.host, options.port))
        except OSError as error:
            sys.exit(f"{options.host}:{options.port} cannot be used ({error.strerror}): choose another by --port.")
    place.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    database = start_postgres(place)
    try:
        make_databases(place)
        server = start_mlflow(place, options)
        try:
            print(_told(place, options), flush=True)
            while server.poll() is None and database.poll() is None:
                time.sleep(0.5)
            sys.exit(f"A server has ended: see {place.folder / 'mlflow.log'} and {place.folder / 'database.log'}.")
        finally:
            end(server, signal.SIGTERM)
    except KeyboardInterrupt:
        return 130
    finally:
        end(database, signal.SIGINT)  # clients are sent away, what they have written is kept


def _told(place: Place, options: argparse.Namespace) -> str:
    name = options.tls[0] if options.tls else options.host
    lines = [f"export MLFLOW_TRACKING_URI={'https' if options.tls else 'http'}://{name}:{options.port}"]
    lines += [f"export MLFLOW_TRACKING_SERVER_CERT_PATH={place.tls / 'ca.pem'}"] if options.tls else []
    lines += ["export MLFLOW_TRACKING_USERNAME=admin"]
    lines += [f"export MLFLOW_TRACKING_PASSWORD=$(cat {place.folder / 'admin.password'})"]
    return "\n".join(lines)


def _answers(options: argparse.Namespace) -> bool:
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE  # whether it answers, not who
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=plain)]
    try:
        address = f"{'https' if options.tls else 'http'}://{host}:{options.port}/health"
        with urllib.request.build_opener(*handlers).open(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(server: subprocess.Popen[bytes], ready, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    try:
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"A server did not start: see {log}.")
            time.sleep(0.2)
    except BaseException:  # Ctrl-C too: nobody else knows of it yet
        end(server, signal.SIGTERM)
        raise


def _call(command: Sequence[str | Path], **more: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **more)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
