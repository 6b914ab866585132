"""The address of a store. As text it lacks its passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus

HIDDEN = "***"
# options whose values tell where a store is and how it is reached; those of all others are hidden
HARMLESS = (
    *("charset", "client_encoding", "connect_timeout", "database", "db", "dbname", "driver", "host", "hostaddr"),
    *("isolation_level", "mode", "options", "port", "read_timeout", "sslmode", "ssl_mode", "timeout"),
    *("trusted_connection", "uri", "user", "username", "write_timeout"),
)
# a secret behind its name, in options and in texts
NAMED = re.compile(
    r"((?:password|passwd|passphrase|pwd|token|secret|credentials?|(?:api|access)[_-]?key)[\w-]*(?:\s*=\s*[\"']?|[\"']\s*:\s*[\"']))"
    r"[^\s&;'\"),]+",
    re.IGNORECASE,
)


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
        return self._uri[: min(start, self._end_of_login())] + NAMED.sub(rf"\1{HIDDEN}", place) + mark + shown

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


def _without_value(option: str) -> str:
    name, equals, _ = option.partition("=")
    return option if not option or name.lower() in HARMLESS else f"{name}={HIDDEN}" if equals else HIDDEN
