"""dlrun: a command-line runner for deep-learning experiments.

    run = dlrun.train("+experiment=digits", "optimizer.lr=0.01")    # as `dlrun train`
    sweep = dlrun.sweep("+experiment=digits", "seed=range(3)")      # as `dlrun train -m`
    table = dlrun.runs(where="status=finished")                     # as `dlrun runs`
    run = dlrun.resume(run, "trainer.epochs=40")                    # as `dlrun resume`
    run = dlrun.load("k3x9")                                        # a run's model, data, curves

Their output is that of the commands. A mistake raises `dlrun.errors.UserError`, with the command's message.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

# nothing heavy at the top: `dlrun --help` imports this file
from dlrun import errors, runs

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from dlrun.runs.reload.loaded import Loaded
    from dlrun.sweeps.loaded import LoadedSweep

__version__ = "0.1.0"
__all__ = ["__version__", "errors", "load", "load_sweep", "resume", "runs", "sweep", "train"]


def train(*overrides: str, config_dir: str | None = None) -> Loaded:
    """Train a run, as `dlrun train OVERRIDE…` does; returns it as `load` does.

    `config_dir` adds a folder of configurations. The process keeps its random state, torch settings, signal handlers
    and logging.

    Raises `dlrun.errors.UserError` for a mistake in the request, and what ended a run that failed; Ctrl-C saves it and
    raises `KeyboardInterrupt`.
    """
    from dlrun.commands.train import train_one
    from dlrun.commands.train.session import session

    with session("train", overrides, command=["train", *_options(config_dir)]):
        return load(str(train_one(overrides, config_dir).path))


def sweep(*overrides: str, config_dir: str | None = None) -> LoadedSweep:
    """Run a sweep, as `dlrun train -m OVERRIDE…` does; returns it as `load_sweep` does.

    The same sweep asked for again continues, and finished jobs are not run again. A job that fails raises nothing: see
    `status` and `runs` of the sweep.

    Raises `dlrun.errors.UserError` for a mistake in the request, before any job starts.
    """
    from dlrun.commands.train import train_many
    from dlrun.commands.train.session import session

    with session("sweep", overrides, command=["train", "-m", *_options(config_dir)]):
        return load_sweep(str(train_many(overrides, config_dir).path))


def resume(run: str | Path | Loaded | LoadedSweep, *overrides: str, retry_failed: bool = False) -> Loaded | LoadedSweep:
    """Continue a run or a sweep, as `dlrun resume` does; returns it.

    `run` is what `train`, `sweep` or `load` has returned, a folder, or the beginning of an id. With
    "trainer.epochs=40" a run trains up to another length; `retry_failed` runs a sweep's failed jobs again.

    Raises `dlrun.errors.UserError` for a mistake in the request, and what ended a run that failed.
    """
    from dlrun.commands.resume import resume as resume_folder
    from dlrun.commands.train.session import session
    from dlrun.storage.rundir import RunDir

    reference = _reference(run)
    flags = ["--retry-failed"] if retry_failed else []
    with session("resume", overrides, command=["resume", reference, *flags]):
        folder = resume_folder(reference, overrides, retry_failed=retry_failed)
        return load(str(folder.path)) if isinstance(folder, RunDir) else load_sweep(str(folder.path))


def load(reference: str | Path, *, trusted: Sequence[str] = ()) -> Loaded:
    """A run's model with its selected weights, its data, configuration, curves and summary.

    `reference` is the run's folder, or the beginning of its id. `trusted` names modules outside of this folder that
    its configuration may use.

    Raises `dlrun.errors.UserError` if there is no such run, or it has no weights yet.
    """
    from dlrun.commands.train.own_modules import as_on_disk
    from dlrun.config import paths
    from dlrun.runs.reload import loaded

    paths.enable_user_modules()
    with as_on_disk():
        return loaded.load(str(reference), trusted=trusted)


def load_sweep(reference: str | Path) -> LoadedSweep:
    """A sweep's runs and configurations as tables, its selected configuration and its report.

    `reference` is the sweep's folder, or the beginning of its id.

    Raises `dlrun.errors.UserError` if there is no such sweep.
    """
    from dlrun.sweeps import loaded

    return loaded.load(str(reference))


def _options(config_dir: str | None) -> list[str]:
    return [] if config_dir is None else ["--config-dir", str(config_dir)]


def _reference(run: str | Path | Loaded | LoadedSweep) -> str:
    folder = getattr(run, "folder", None)
    return str(run if folder is None else folder.path)


class _Runs(types.ModuleType):
    """The room `dlrun.runs`, which can be called: its name is also that of the command."""

    def __call__(
        self,
        *references: str,
        where: str | Sequence[str] = (),
        metric: str | Sequence[str] = (),
        last: int | None = None,
        sort: str | None = None,
        descending: bool = False,
    ) -> pd.DataFrame:
        """The runs that `dlrun runs` lists, a row each, the oldest first.

        The index is the run's id; the columns are what `dlrun runs` shows, and all metrics, or those of `metric`.
        `references` are runs and sweeps. `where="status=finished"` or `["name=mnist", "test/error<0.01"]`, `last`,
        `sort` and `descending` are the command's options.

        Raises `dlrun.errors.UserError` for a condition or a name that is none.
        """
        from dlrun.commands.runs.frame import frame

        return frame(references, where=where, metric=metric, last=last, sort=sort, descending=descending)


runs.__class__ = _Runs
