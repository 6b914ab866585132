"""Send each run and sweep of an outputs folder at once, each by a process: `python -m tests.faults.writers SECONDS`."""

from __future__ import annotations

import os
import random
import shutil
import string
import sys
import time
import traceback
from pathlib import Path

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import TRACKERS, uploader
from tests.faults.compare import of_outputs


def copies(template: Path, outputs: Path, runs: int, sweeps: int) -> None:
    """Fill an outputs folder with untracked runs and sweeps under new ids."""
    for kind, count in (("runs", runs), ("sweeps", sweeps)):
        source = next(template.glob(f"{kind}/*/*"))
        for _ in range(count):
            new = "".join(random.choices(string.ascii_lowercase, k=8))
            place = outputs / source.relative_to(template).with_name(f"{source.name.rpartition('-')[0]}-{new}")
            shutil.copytree(source, place)


def _send(folder: RunDir | SweepDir, patience: float) -> int:
    try:
        return int(not uploader.send(folder, TRACKERS["mlflow"], patience=patience))
    except BaseException:
        traceback.print_exc()
        return 2


def main(argv: list[str]) -> int:
    """Send everything of the outputs folder; returns the number of those that were not sent whole."""
    import mlflow  # noqa: F401  before the processes part

    runs, sweeps = of_outputs()
    children = []
    for folder in (*runs, *sweeps):
        child = os.fork()
        if child == 0:
            os._exit(_send(folder, float(argv[0])))
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    began = time.monotonic()
    failed = main(sys.argv[1:])
    print(f"{failed} failed, {time.monotonic() - began:.1f} s")
    sys.exit(int(failed > 0))
