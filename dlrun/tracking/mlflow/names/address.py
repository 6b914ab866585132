"""The address of a store: as text it lacks its passwords, and texts about it lose them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO, cast
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
# options whose values tell where a store is and how it is reached; those of all others are hidden
HARMLESS = (
    *("charset", "client_encoding", "connect_timeout", "database", "db", "dbname", "driver", "host", "hostaddr"),
    *("isolation_level", "mode", "options", "port", "read_timeout", "sslmode", "ssl_mode", "timeout"),
    *("trusted_connection", "uri", "user", "username", "write_timeout"),
)
# what MLflow and its stores of artifacts log in with
VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
    "DATABRICKS_PASSWORD",
    "DATABRICKS_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
)
# a shorter secret is part of ordinary words: it is hidden in addresses only
SHORTEST = 4

_NAMED = re.compile(
    r"((?:password|passwd|passphrase|pwd|token|secret|credentials?|(?:api|access)[_-]?key)[\w-]*(?:\s*=\s*[\"']?|[\"']\s*:\s*[\"']))"
    r"[^\s&;'\"),]+",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(\b[a-z][\w+.\-]*://)(?:[^\s/?#\"'<>]*|[^\s:/@\"'<>]*:(?!\d+/)[^\s@\"'<>]*)@", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class Address:
    """The address of a store; `reveal` has its secrets, its text has not.

    >>> print(Address("https://ada:hunter2@mlflow.example.org/x?token=hunter2&timeout=9"))
    https://mlflow.example.org/x?token=***&timeout=9
    """

    _uri: str

    def reveal(self) -> str:
        """The whole address, for the library that opens the store."""
        return self._uri

    @property
    def dialect(self) -> str:
        """The kind of store: `sqlite`, `postgresql`, `http`."""
        return self._uri.partition(":")[0].partition("+")[0].lower()

    @property
    def secrets(self) -> Iterator[str]:
        """The passwords and tokens in it."""
        login = self._uri[: self._end_of_login()].removesuffix("@")
        _, slashes, behind = login.partition("//")
        user, colon, password = (behind if slashes else login).partition(":")
        # a server may take a token in place of a user's name
        yield password if colon or not self.dialect.startswith("http") else user
        for option in re.split("[&;]", self._uri[self._end_of_login() :].partition("?")[2]):
            name, equals, value = option.partition("=")
            if name.lower() not in HARMLESS:
                yield value if equals else name
                # options within the option, as those of ODBC
                yield from re.findall(r"=([^;]+)", unquote_plus(value))

    def __str__(self) -> str:
        start = self._uri.find("//") + 2 if "//" in self._uri else 0
        place, mark, options = self._uri[self._end_of_login() :].partition("?")
        shown = "&".join(_without_value(option) for option in re.split("[&;]", options))
        # behind `#` there may be a token too
        return self._uri[: min(start, self._end_of_login())] + _NAMED.sub(rf"\1{HIDDEN}", place) + mark + shown

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def _end_of_login(self) -> int:
        """The index behind a user's name and password; 0 without."""
        if self.dialect == "sqlite":  # `@` is part of the path
            return 0
        if self.dialect.startswith("http"):
            found = re.match(r"[\w+.\-]*://(?:[^/?#]*|[^:/@]*:(?!\d+(?:/|$))[^@]*)@", self._uri)
            return found.end() if found else 0
        # as SQLAlchemy reads it, a password may contain all but `@`
        before, _, _ = self._uri.partition("@")
        return self._uri.rfind("@") + 1 if "//" in before or ":" in before else 0


def hide_secrets(text: str) -> str:
    """The text without passwords: those of the environment, and those of any address.

    >>> hide_secrets("cannot connect to mysql://ada:hunter2@db/runs?password=hunter2")
    'cannot connect to mysql://db/runs?password=***'
    """
    secrets = [*Address(os.environ.get("MLFLOW_TRACKING_URI", "")).secrets, *map(os.environ.get, VARIABLES)]
    known = {secret for secret in secrets if secret}
    # an exception may show it decoded, or encoded once more
    known |= {change(secret) for secret in known for change in (unquote, unquote_plus, quote, quote_plus)}
    for secret in sorted((s for s in known if len(s) >= SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _NAMED.sub(rf"\1{HIDDEN}", _LOGIN.sub(r"\1", text))


def message(error: BaseException, limit: int = 500) -> str:
    """The first line of an exception, without passwords.

    >>> message(ValueError("no such host: mysql://ada:hunter2@db"))
    'ValueError: no such host: mysql://db'
    """
    # hidden first: a cut must not leave half of a secret
    lines = hide_secrets(str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:limit]}"


class HidingStream(io.TextIOBase):
    """A stream that writes texts without their passwords."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hide_secrets(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


def hiding(stream: TextIO) -> TextIO:
    """The stream, with texts written to it without their passwords."""
    return cast("TextIO", HidingStream(stream))


def _without_value(option: str) -> str:
    name, equals, _ = option.partition("=")
    return option if not option or name.lower() in HARMLESS else f"{name}={HIDDEN}" if equals else HIDDEN
