"""MLflow's server in a process that ends it when whoever started it has ended.

Its standard input is a pipe that `dlrun ui` holds: the kernel closes it however `dlrun ui` ends. What the server
prints goes through here into its log, without passwords.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dlrun.storage.files.waiting import pause
from dlrun.tracking.mlflow.names.secrets import hide_secrets

# seconds that the server has to end by itself
GRACE = 1.0


def main(argv: Sequence[str]) -> int:
    """Run `mlflow server` with the options behind the log's path; returns its exit code."""
    log, *options = argv
    # not ignored: the server would inherit that
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    # the store's address is in the environment: anybody can read a command line
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlflow", "server", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    threading.Thread(target=_end_with_starter, daemon=True).start()
    assert server.stdout
    with Path(log).open("w", encoding="utf-8", buffering=1) as file:
        for line in server.stdout:
            file.write(hide_secrets(line))
    return server.wait()


def _end_with_starter() -> None:
    sys.stdin.buffer.read()  # returns when the other end is closed
    # the group is this process, the server and its workers
    os.killpg(0, signal.SIGTERM)
    pause(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
