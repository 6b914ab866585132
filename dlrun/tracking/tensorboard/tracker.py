"""TensorBoard as a tracker: event files in the outputs folder, which `tensorboard --logdir` shows."""

from __future__ import annotations

import importlib.util
import re
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.storage.rundir import NAMED, RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.owner import twin
from dlrun.tracking.content.run_source import RunSource, of_run
from dlrun.tracking.content.shorten import digest, shorten
from dlrun.tracking.content.state import MADE, outputs_of

if TYPE_CHECKING:
    from dlrun.tracking.tensorboard.run import TensorboardRun

# a file's name has 255 bytes, a character up to four
NAME = 60


class Tensorboard:
    """Event files under `outputs/tensorboard`, a folder for each run."""

    name = "tensorboard"
    title = "TensorBoard"
    sorts = False

    def check(self, *, system_metrics: bool = False) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "tracking.backends names tensorboard, which is not installed.\n"
                "Type `pip install 'dlrun[tensorboard]'`, or leave tracking.backends at [mlflow]."
            )

    def location(self, folder: RunDir | SweepDir) -> str:
        # a run's folder may be copied to an outputs folder without one
        return str(_root(folder)) + ("" if _root(folder).is_dir() else f"{MADE}None")

    def connect(self, folder: RunDir | SweepDir) -> TensorboardConnection:
        _root(folder).mkdir(parents=True, exist_ok=True)
        return TensorboardConnection()

    def explain(self, folder: RunDir | SweepDir, error: Exception) -> str | None:
        return None

    def link(self, folder: RunDir | SweepDir) -> str:
        root = _root(folder)
        return f"tensorboard --logdir {root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root}"

    def delete(self, folder: RunDir | SweepDir) -> Path | None:
        target = _sweep_folder(folder) if isinstance(folder, SweepDir) else _run_folder(of_run(folder))
        # two folders of one name have one folder here, which the other needs
        if target.is_dir() and (other := twin(folder.path)):
            return other
        shutil.rmtree(target, ignore_errors=True)
        return None


@dataclass(frozen=True)
class TensorboardConnection:
    """The event files, each opened for itself."""

    def open_run(self, source: RunSource, metadata: Metadata, *, start: int) -> TensorboardRun:
        return _open(_run_folder(source), metadata, start=start)

    def open_sweep(
        self, sweep: SweepDir, name: str, experiment: str, metadata: Metadata, *, start: int
    ) -> TensorboardRun:
        return _open(_sweep_folder(sweep), metadata, start=start)

    def transaction(self, source: RunSource) -> AbstractContextManager[None]:
        return nullcontext()


def _open(folder: Path, metadata: Metadata, *, start: int) -> TensorboardRun:
    from dlrun.tracking.tensorboard.run import TensorboardRun  # imports TensorBoard, which is an extra

    run = TensorboardRun(folder, folder.name, start=start)
    run.send(metadata)
    return run


def _root(folder: RunDir | SweepDir) -> Path:
    return outputs_of(folder) / "tensorboard"


def _run_folder(source: RunSource) -> Path:
    home = RunDir(source.home)
    if source.sweep is None:
        return _unique(home)
    label = re.sub(r"[^\w.,=+\- ]", "_", f"{home.path.name} {source.label or ''}".strip())
    return _unique(source.sweep) / shorten(label, NAME)


def _sweep_folder(sweep: SweepDir) -> Path:
    return _unique(sweep)


def _unique(folder: RunDir | SweepDir) -> Path:
    """A folder's own folder in the store."""
    root, path = _root(folder), folder.path
    if NAMED.fullmatch(path.name):
        return root / path.name
    # dlrun's own names have a random id; one that a person chose may be there twice
    former = root / f"{path.name}-{digest(str(path))}"
    # relative to the outputs folder, for that may be moved
    within = str(path.relative_to(root.parent)) if path.is_relative_to(root.parent) else str(path)
    return former if former.exists() else root / f"{path.name}-{digest(within)}"
