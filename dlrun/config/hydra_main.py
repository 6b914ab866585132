"""Hydra's command line, in place of `@hydra.main`.

`@hydra.main` composes twice, allows no options between overrides, prints its own errors, and leaves a folder behind
for a wrong configuration. Here a run is composed once, checked, and only then given a folder.

Private names of Hydra 1.3, each with a test in tests/config/test_compose.py: `_internal.hydra.Hydra`,
`_internal.callbacks.Callbacks`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import environ
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dlrun.config.compose import JOB, PRIMARY, load, open_hydra, warn_of_shadowing, without_hydra
from dlrun.config.hydra_parser import parse, split_blocks
from dlrun.errors import ConfigError, DlrunError, UserError, place
from dlrun.storage import lookup
from dlrun.terminal import output

P = TypeVar("P")
R = TypeVar("R")
Job = Callable[[DictConfig], Any]

MULTIRUN = "hydra.mode=MULTIRUN"
"""The override behind `-m`."""


def run(
    argv: Sequence[str],
    *,
    prog: str,
    prepare: Callable[[DictConfig], P],
    task: Callable[[P, Path], Any],
    sweep: Callable[[Hydra, DictConfig], int | None],
) -> int:
    """Train a run or a sweep; returns the exit code.

    A run: `prepare` takes its configuration and raises `UserError` for a mistake in it; `task` takes the result, and
    the run's new folder. A sweep: `sweep` runs it, or returns None to leave its jobs to Hydra's launcher.
    """
    with _command_line(argv, prog) as line:
        if line.asks_for_help:
            return line.show()
        cfg = line.compose()
        if cfg.hydra.mode == RunMode.MULTIRUN:
            with _writing():
                code = sweep(line.hydra, cfg)
            each = partial(_prepare_and_run, prepare, task)
            return _sweep(line.hydra, cfg, line.args.overrides, each) if code is None else code
        return _report(_run(line.hydra, cfg, prepare, task))


def run_one(
    overrides: Sequence[str],
    *,
    prepare: Callable[[DictConfig], P],
    task: Callable[[P, Path], Any],
    config_dir: str | None = None,
) -> Path:
    """Train a run as `run` does; returns its folder.

    Raises what ended it, and `UserError` for the configuration of a sweep.
    """
    with _composed(overrides, config_dir) as (hydra, cfg):
        if cfg.hydra.mode == RunMode.MULTIRUN:
            raise UserError(f"This is a sweep of many runs. Type dlrun.sweep({', '.join(map(repr, overrides))}).")
        for error in _run(hydra, cfg, prepare, task):
            raise error
        return Path(cfg.hydra.runtime.output_dir)


def run_many(overrides: Sequence[str], *, sweep: Callable[[Hydra, DictConfig], R], config_dir: str | None = None) -> R:
    """Run a sweep as `run` does; returns what `sweep` does."""
    words, blocks = split_blocks(overrides)
    with _composed([*words, *blocks, MULTIRUN], config_dir) as (hydra, cfg), _writing():
        return sweep(hydra, cfg)


def inspect(
    argv: Sequence[str],
    *,
    prog: str,
    use: Callable[[DictConfig], int],
    use_sweep: Callable[[Hydra, DictConfig], int] | None = None,
) -> int:
    """Use a configuration without a folder; returns the exit code.

    `use` takes a run's configuration, `use_sweep` a sweep's. Raises `UserError` for a sweep without the latter.
    """
    with _command_line(argv, prog) as line:
        refusal = f"{prog} takes one configuration, and this is a sweep. Leave out -m, and give one value a key."
        if line.args.multirun and use_sweep is None:
            raise UserError(refusal)
        if line.asks_for_help:
            return line.show()
        cfg = line.compose()
        if cfg.hydra.mode == RunMode.MULTIRUN:
            if use_sweep is None:
                raise UserError(refusal)
            return use_sweep(line.hydra, cfg)
        HydraConfig.instance().set_config(cfg)
        return use(without_hydra(cfg))


@dataclass(frozen=True)
class _CommandLine:
    """A parsed command line, and its open Hydra."""

    hydra: Hydra
    parser: argparse.ArgumentParser
    args: argparse.Namespace

    @property
    def name(self) -> str:
        return self.args.config_name or PRIMARY

    @property
    def asks_for_help(self) -> bool:
        return bool(self.args.help or self.args.hydra_help or self.args.cfg or self.args.info)

    def compose(self) -> DictConfig:
        if self.args.multirun:
            self.args.overrides.append(MULTIRUN)
        cfg = load(self.hydra, self.name, self.args.overrides)
        warn_of_shadowing(cfg, self.name)
        return cfg

    def show(self) -> int:
        """Print the help, the configuration or Hydra's own information."""
        hydra, args = self.hydra, self.args
        if args.help:
            args.overrides.append(f"hydra.help.app_name='{self.parser.prog}'")
            hydra.app_help(config_name=self.name, args_parser=self.parser, args=args)
        elif args.hydra_help:
            hydra.hydra_help(config_name=self.name, args_parser=self.parser, args=args)
        elif args.cfg:
            try:
                hydra.show_cfg(self.name, args.overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)
            except SystemExit:  # no such package, and Hydra has said so
                return UserError.exit_code
        else:
            hydra.show_info(args.info, config_name=self.name, overrides=args.overrides)
        return 0


@contextmanager
def _command_line(argv: Sequence[str], prog: str) -> Iterator[_CommandLine]:
    parser, args = parse(argv, prog)
    with open_hydra(args.config_dir) as hydra, _restore_logging():
        yield _CommandLine(hydra, parser, args)


@contextmanager
def _composed(overrides: Sequence[str], config_dir: str | None) -> Iterator[tuple[Hydra, DictConfig]]:
    with open_hydra(config_dir) as hydra, _restore_logging():
        cfg = load(hydra, PRIMARY, overrides)
        warn_of_shadowing(cfg, PRIMARY)
        yield hydra, cfg


@contextmanager
def _restore_logging() -> Iterator[None]:
    # Hydra sets logging up anew for each run, and this may not be the process's last one
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def _run(
    hydra: Hydra, cfg: DictConfig, prepare: Callable[[DictConfig], P], task: Callable[[P, Path], Any]
) -> list[Exception]:
    """Run one run in its new folder; returns the errors of `task`."""
    cfg.hydra.mode = RunMode.RUN  # it may be unset
    HydraConfig.instance().set_config(cfg)
    prepared = prepare(without_hydra(cfg))
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=cfg.hydra.job.config_name)
    failures: list[Exception] = []
    try:
        with _writing():  # the folder: the task's own errors are in `failures`
            done = run_job(
                task_function=_record_failures(lambda _: task(prepared, _folder()), failures),
                config=cfg,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
            )
    except OmegaConfBaseException as error:
        raise ConfigError(f"`hydra.run.dir` cannot be resolved: {str(error).splitlines()[0]}.") from error
    callbacks.on_run_end(config=cfg, config_name=cfg.hydra.job.config_name, job_return=done)
    return failures


def _prepare_and_run(prepare: Callable[[DictConfig], P], task: Callable[[P, Path], Any], cfg: DictConfig) -> Any:
    return task(prepare(cfg), _folder())


def _sweep(hydra: Hydra, master: DictConfig, overrides: list[str], job: Job) -> int:
    """Hand a sweep to Hydra's own sweeper and launcher."""
    name = master.hydra.job.config_name
    # resolved here: a job's own name, or the time at which it starts, must not move the sweep's folder
    overrides = [*overrides, "hydra.sweep.dir='{}'".format(master.hydra.sweep.dir.replace("'", r"\'"))]
    failures: list[Exception] = []
    try:
        # all failures are told at the end, below the lines of the jobs
        with _writing():
            returned = hydra.multirun(name, _record_failures(job, failures), overrides)
        failures = failures or [*_failures_in(returned)]
    except Exception as error:
        # a job that cannot be composed, or a folder that cannot be written
        if isinstance(error, DlrunError) and (not failures or isinstance(error.__cause__, OSError)):
            raise
        failures = failures or [error]
    return _report(failures)


def _failures_in(returned: Any) -> Iterator[Exception]:
    # a launcher with processes of its own returns the errors of jobs
    if isinstance(returned, JobReturn):
        if returned.status == JobStatus.FAILED:
            yield returned._return_value
    elif isinstance(returned, list | tuple):
        for inner in returned:
            yield from _failures_in(inner)


def _record_failures(job: Job, failures: list[Exception]) -> Job:
    """Wrap a job: its error is logged and kept."""

    def recorded(cfg: DictConfig) -> Any:
        try:
            return job(cfg)
        except Exception as error:  # Hydra would print it in its own way
            logging.getLogger("dlrun").exception("The run failed.")
            error.add_note(f"The traceback is in {_folder() / f'{JOB}.log'}")
            failures.append(error)
            raise

    return recorded


def _folder() -> Path:
    """The folder of the run or job under way."""
    return Path(HydraConfig.get().runtime.output_dir)


def _report(failures: Sequence[Exception]) -> int:
    """Print each failure once; returns the exit code."""
    for error in failures:
        if environ.get("DLRUN_TRACEBACK") == "1":
            output.show_traceback(error)
        if isinstance(error, UserError):
            output.warn(str(error))
            continue
        text = str(error) if isinstance(error, DlrunError) else f"{type(error).__name__}: {error}{place(error)}"
        logs = [f"\n{where}; DLRUN_TRACEBACK=1 shows it here." for where in _notes(error)[-1:]]
        output.warn("".join([text, *logs]))
    # 1 if any run failed by itself, 2 if all failures are the user's mistakes
    return min((2 if isinstance(error, UserError) else 1 for error in failures), default=0)


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])


@contextmanager
def _writing() -> Iterator[None]:
    """Say of an `OSError` that the folder of the run cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The folder for this run cannot be written: {error.filename or lookup.outputs()}: {error.strerror}."
            "\nSet DLRUN_OUTPUTS to a folder that you may write to."
        ) from error
