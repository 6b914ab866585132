"""A command that is run when a run ends, however it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, get_args

from dlrun.errors import ConfigError
from dlrun.observers.view import RunView

__all__ = ["Alert"]

Outcome = Literal["finished", "failed", "diverged", "killed", "pruned"]
FILLED = ("name", "status", "step")
"""What a command may have in braces: nothing that a shell would take for more than a word."""
SHOWN = 200
"""Characters of a command's error that are shown."""


class Alert:
    """A command when a run fails, diverges or ends.

    It is not passed to a shell (`sh -c '…'` has one). Its environment has DLRUN_RUN_ID, DLRUN_RUN_NAME,
    DLRUN_RUN_FOLDER, DLRUN_RUN_STATUS (one of `when`), DLRUN_RUN_STEP, DLRUN_RUN_ERROR and DLRUN_RUN_METRICS (JSON);
    {name}, {status} and {step} in the command stand for three of them. After `timeout` seconds it is killed. Nothing
    of it ends or changes the run.
    """

    runs_command = "command"  # only one that the user has given: `config.trust.check_command`

    def __init__(
        self,
        command: str | None = None,
        when: Sequence[Outcome] = ("finished", "failed", "diverged", "killed"),
        timeout: float = 10.0,
    ) -> None:
        try:
            # of None it would read the standard input
            self.words = shlex.split(command or "")
        except ValueError as error:
            raise ConfigError(f"The alert's command={command} cannot be read: {error}.") from None
        if not self.words:
            raise ConfigError(
                "The alert has no command. Type for example "
                '"observers.alert.command=\'notify-send \\"{name}: {status}\\"\'".'
            )
        if unknown := [word for word in when if word not in get_args(Outcome)]:
            raise ConfigError(f"The alert's when has {unknown[0]}: expected some of {', '.join(get_args(Outcome))}.")
        if not timeout > 0:
            raise ConfigError(f"The alert's timeout={timeout} must be greater than 0. Type for example timeout=10.")
        self.when, self.timeout = tuple(when), timeout

    def on_end(self, run: RunView) -> None:
        status = "diverged" if run.diverged else run.status
        if status not in self.when:
            return
        told = {
            "id": run.id,
            "name": run.name,
            "folder": str(run.run_folder),
            "status": status,
            "step": str(run.step),
            "error": run.error or "",
            "metrics": json.dumps(run.metrics),
        }
        words = [fill(word, {key: told[key] for key in FILLED}) for word in self.words]
        # no environment has a zero byte
        environment = {f"DLRUN_RUN_{key.upper()}": value.replace("\0", "") for key, value in told.items()}
        code, said = _run(words, os.environ | environment, self.timeout)
        if code:
            raise RuntimeError(f"`{shlex.join(self.words)}` ended with exit code {code}: {said[:SHOWN] or 'no error'}")


def fill(word: str, told: Mapping[str, str]) -> str:
    """A word with the run's values in the place of their names in braces.

    >>> fill("{name} has {status}, {x}", {"name": "{status}", "status": "failed"})
    '{status} has failed, {x}'
    """
    return re.sub(r"\{(\w+)\}", lambda found: told.get(found[1], found[0]), word)


def _run(words: Sequence[str], environment: Mapping[str, str], timeout: float) -> tuple[int, str]:
    """Run a command; returns its exit code, and the last line of its errors."""
    # a file, not a pipe, whose end would be waited for as long as a child of the command lives
    with tempfile.TemporaryFile() as errors:
        # in a session of its own: the Ctrl-C that ended the run is not for it
        process = subprocess.Popen(
            words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except BaseException as error:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"`{shlex.join(words)}` was killed: it took more than {timeout:g} s") from None
            raise
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    return code, lines[-1] if lines else ""
