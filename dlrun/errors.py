"""The exceptions, and common parts of messages.

DlrunError
├── UserError      the request cannot be carried out: exit code 2, one message, no traceback
│   ├── ConfigError    a group, key, type or combination in the configuration
│   │   └── MissingModule  a part's module is not found
│   ├── DataError      a data set's files: missing, altered, truncated
│   └── DamagedFile    a file of a run or a sweep: truncated, altered
├── RunError       a run failed while it ran: exit code 1
│   └── NonFinite      the loss is not a finite number
└── Pruned         a trial of a search was stopped early; no failure
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class DlrunError(Exception):
    """The root of dlrun's exceptions."""

    exit_code = 1


class UserError(DlrunError):
    """A mistake in the request, with the words to type."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """The message alone, which IPython shows in place of a traceback."""
        if os.environ.get("DLRUN_TRACEBACK") == "1":
            import traceback  # `dlrun --help` imports this file

            return traceback.format_exception(self)
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """An invalid group, key, value or combination in the configuration."""


class MissingModule(ConfigError):
    """The module of a part is neither installed nor in the current folder."""


class DataError(UserError):
    """A data set's files are missing, truncated or altered."""


class DamagedFile(UserError):
    """A file of a run or a sweep is truncated or altered."""

    def __init__(self, path: Path, found: str, advice: str) -> None:
        super().__init__(f"{path} is damaged: {found}.\n{advice}")
        self.path = path
        self.found = found


class RunError(DlrunError):
    """A run failed while it ran."""


class NonFinite(RunError):
    """The loss of a step is not a finite number."""

    def __init__(self, message: str, *, step: int | None = None, loss: float | None = None) -> None:
        super().__init__(message)
        self.step, self.loss = step, loss


class Detached(DlrunError):
    """A sweep whose jobs go on without this process."""

    exit_code = 0


class Pruned(DlrunError):
    """A trial stopped early, by SIGUSR1, and saved."""


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """A suggestion of the closest of `valid`, or nothing.

    >>> did_you_mean("modle", ["model", "loss"])
    ' Did you mean `model`?'
    >>> did_you_mean("NLL", ["nll", "mse"])
    ' Did you mean `nll`?'
    >>> did_you_mean("gradient_clip", ["clip", "log_gradients"])
    ' Did you mean `clip` or `log_gradients`?'
    >>> did_you_mean("x", ["model"])
    ''
    """
    # of names that differ in case only, the last
    lower = {name.lower(): name for name in valid}
    parts = [name for name in given.lower().split("_") if name in lower and name != given.lower()]
    found = dict.fromkeys([*parts, *difflib.get_close_matches(given.lower(), list(lower), n=3, cutoff=0.6)])
    close = [lower[name] for name in [*found][:3]]
    return f" Did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else ""


def place(error: BaseException) -> str:
    """The user's own line in a traceback, or nothing."""
    import traceback  # `dlrun --help` imports this file

    here, package = Path.cwd(), Path(__file__).parent
    # from the innermost frame on: those of libraries are passed over, and dlrun's own in a checkout
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(here) and "site-packages" not in file.parts and not file.is_relative_to(package):
            return f" ({file.relative_to(here)}, line {frame.lineno})"
    return ""
