"""`dlrun train`: compose, check, train, select, test once, show."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dlrun import tracking
from dlrun.commands.train import launch, multirun, ranks
from dlrun.commands.train.unfinished import Unfinished, requeued
from dlrun.commands.train.unfinished import check as check_unfinished
from dlrun.config import hydra_main
from dlrun.config.check import check_config
from dlrun.errors import ConfigError, DlrunError, RunError, place
from dlrun.execution.ranks import world
from dlrun.runs.build import Built, build
from dlrun.runs.reload.rebuild import rebuild
from dlrun.runs.run import run
from dlrun.storage.machine import check_single
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.jobs.pretrained import begin_with_pretrained
from dlrun.sweeps.run_job import seal
from dlrun.terminal import output

LOGGED = "The traceback is in "
"""The beginning of a note on an exception whose traceback a run's log has."""


def main(argv: list[str]) -> int:
    # at once: an end of the first process is then seen by the others
    if (joined := world.world()) is not None and not joined.first:
        return ranks.follow()
    try:
        return hydra_main.run(argv, prog="dlrun train", prepare=prepare, task=_train, sweep=_sweep)
    except launch.NeedsProcesses as asked:
        return launch.launch(asked.devices, ["train", *argv])
    except Unfinished as found:
        try:
            go_on(found.folder)
        except Exception as error:
            if (told := explained(error)) is None:
                raise
            raise told from error
        return 0


def train_one(overrides: Sequence[str], config_dir: str | None = None) -> RunDir:
    """Train the run of these overrides, as `main` does.

    Raises what ended it; of a run in several processes `RunError`, for it was raised in another.
    """
    try:
        return RunDir(hydra_main.run_one(overrides, prepare=prepare, task=_train, config_dir=config_dir))
    except launch.NeedsProcesses as asked:
        where = ["--config-dir", config_dir] if config_dir else []
        code = launch.launch(asked.devices, ["train", *where, *overrides, f"hydra.run.dir='{asked.folder}'"])
        if code:
            raise RunError(f"The run in {asked.folder} has ended with the exit code {code}.") from None
        return RunDir(asked.folder)
    except Unfinished as found:
        go_on(found.folder)
        return found.folder


def train_many(overrides: Sequence[str], config_dir: str | None = None) -> SweepDir:
    """Run the sweep of these overrides, as `main` does with `-m`.

    A job that fails raises nothing. Raises `UserError` for a launcher of another program.
    """
    return hydra_main.run_many(overrides, sweep=multirun.run_sweep, config_dir=config_dir)


def _sweep(hydra: Hydra, master: DictConfig) -> int | None:
    check_single("dlrun train -m …")
    return multirun.run(hydra, master)


def _train(built: Built, folder: Path) -> dict[str, Any]:
    with requeued(built):
        return train(built, RunDir(folder), job=HydraConfig.get().mode == RunMode.MULTIRUN)


def prepare(config: DictConfig) -> Built:
    """Check and build a run before its folder exists."""
    hydra = HydraConfig.get()
    try:
        folder = Path(hydra.run.dir).absolute()
    except OmegaConfBaseException as error:
        raise ConfigError(f"`hydra.run.dir` cannot be resolved: {str(error).splitlines()[0]}.") from error
    if hydra.mode == RunMode.RUN:
        # checked now, for Hydra overwrites the configuration of a run there
        if config.get("resume") != "auto":
            RunDir(folder).check_free()
        trainer = check_config(config)["trainer"]
        launch.check(trainer["devices"], trainer["device"], folder)
        if trainer["strategy"] != "auto" and world.world() is None:
            raise ConfigError(
                f"trainer.strategy={trainer['strategy']} is for several devices. Type trainer.devices=2, or "
                "trainer.strategy=auto"
            )
    built = build(begin_with_pretrained(config))
    if hydra.mode == RunMode.RUN:
        check_unfinished(built, ranks.identity_of(built), RunDir(folder))
        RunDir(folder).check_free()
    if built.tracking.enabled:
        tracking.check(built.tracking.backends, system_metrics=built.tracking.system_metrics)
    return ranks.share(built, RunDir(folder))


def go_on(folder: RunDir) -> None:
    """Go on with a run by its own configuration; an error's traceback goes to its log."""
    output.say(f"resume=auto: going on with {folder.path}")
    built = ranks.share(rebuild(folder), folder)
    with requeued(built), logging_errors(folder):
        train(built, folder, resumed=True)


@contextmanager
def logging_errors(folder: RunDir) -> Iterator[None]:
    """Have the log of a run that goes on show the traceback of what ends it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, DlrunError) or (error.exit_code == RunError.exit_code and error.__cause__ is not None):
            with suppress(OSError), folder.log.open("a") as log:
                traceback.print_exception(error, file=log)
            error.add_note(f"{LOGGED}{folder.log}")
        raise


def explained(error: Exception) -> RunError | None:
    """What to tell of an error in a run that went on, with the log of its traceback; None without one."""
    logged = [note for note in getattr(error, "__notes__", []) if note.startswith(LOGGED)]
    if not logged:
        return None
    # as `dlrun train` says it
    text = str(error) if isinstance(error, DlrunError) else f"{type(error).__name__}: {error}{place(error)}"
    return RunError(f"{text}\n{logged[-1]}; DLRUN_TRACEBACK=1 shows it here.")


def train(
    built: Built,
    folder: RunDir,
    *,
    resumed: bool = False,
    job: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train in `folder` beside uploaders; returns the summary.

    At the end they get `tracking.wait` seconds. A `job` of a sweep keeps the test split sealed; `on_start` is called
    once training begins.
    """
    if job or folder.of_a_sweep:  # only the sweep's selected jobs are tested, at its end
        built = seal(built)
    uploaders: list[tracking.Uploader] = []

    def start() -> None:
        on_start()
        if built.tracking.enabled:
            uploaders.append(tracking.start(folder))

    try:
        return run(built, folder, resumed=resumed, job=job, on_start=start).to_dict()
    finally:
        # after a failure too: the trackers learn of it
        with output.optional():
            for uploader in uploaders if built.tracking.wait else []:
                _wait(uploader, built.tracking.wait, folder)


def _wait(uploader: tracking.Uploader, seconds: float, folder: RunDir) -> None:
    output.live(f"  sending to {uploader.destination} …")
    if uploader.wait(seconds):
        output.say(f"  {tracking.link(folder)}")
    else:
        for line in uploader.describe_rest():
            output.say(f"  {line}")
