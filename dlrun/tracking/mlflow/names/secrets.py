"""Passwords taken out of texts: of exceptions, and of what libraries print."""

from __future__ import annotations

import io
import os
import re
from typing import TextIO, cast
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from dlrun.tracking.mlflow.names.address import HIDDEN, NAMED, Address

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

_LOGIN = re.compile(r"(\b[a-z][\w+.\-]*://)(?:[^\s/?#\"'<>]*|[^\s:/@\"'<>]*:(?!\d+/)[^\s@\"'<>]*)@", re.IGNORECASE)


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
    return NAMED.sub(rf"\1{HIDDEN}", _LOGIN.sub(r"\1", text))


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
