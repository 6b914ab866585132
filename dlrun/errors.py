"""What can go wrong, by whose doing, and how close matches are suggested.

DlrunError
├── UserError      the request cannot be carried out: exit code 2, one message, no traceback
│   ├── ConfigError    a group, key, type or combination in the configuration
│   └── DataError      a data set's files: missing, altered, truncated
├── RunError       a run failed while it ran: exit code 1
│   └── NonFinite      the loss is not a finite number
└── Pruned         a run was asked to stop, for it is not worth going on; no failure
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DlrunError(Exception):
    """The root of dlrun's own exceptions."""

    exit_code = 1


class UserError(DlrunError):
    """The request cannot be carried out; the message says what was given, what is valid, what to type."""

    exit_code = 2


class ConfigError(UserError):
    """A group, key, value or combination in the configuration is not valid."""


class DataError(UserError):
    """A data set's files are missing, truncated or altered."""


class RunError(DlrunError):
    """A run failed while it ran."""


class NonFinite(RunError):
    """The loss is not a finite number; the message names the step."""


class Pruned(DlrunError):
    """A run was asked to stop (SIGUSR1), for it is not worth going on; it is saved, and no failure."""


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Return a sentence that suggests the closest of `valid`, or an empty string.

    >>> did_you_mean("modle", ["model", "loss"])
    ' Did you mean `model`?'
    >>> did_you_mean("x", ["model"])
    ''
    """
    close = difflib.get_close_matches(given, list(valid), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else ""


def place(error: BaseException) -> str:
    """Return where in the user's own folder an error arose, as ` (mine.py, line 7)`, or an empty string."""
    import traceback  # `dlrun --help` imports this file

    here = Path.cwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(here) and "site-packages" not in file.parts:
            return f" ({file.relative_to(here)}, line {frame.lineno})"
    return ""
