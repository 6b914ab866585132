"""Hydra's command line, driven by hand: argv → one configuration → its run, or a sweep.

`@hydra.main` would compose twice, allow no options between overrides, print its own errors, and
leave a folder behind for a configuration that is wrong. Here a single run is composed once, checked,
and only then given a folder.

These private names of Hydra 1.3 are used here, each by a test of tests/config/test_compose.py:
`_internal.hydra.Hydra`, `_internal.callbacks.Callbacks`, `_internal.utils.get_args_parser`.
"""

from __future__ import annotations

import argparse
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.commands import _multirun
from dlrun.config import hydra_targets, trust
from dlrun.config.compose import JOB, PRIMARY, config, load, open_hydra, warn_of_shadowing, without_hydra
from dlrun.errors import ConfigError, DlrunError, UserError, place
from dlrun.storage import rundir
from dlrun.terminal import output

__all__ = ["config", "consult", "parse", "run"]

if TYPE_CHECKING:
    from dlrun.sweeps.jobs import ComposedJob

P = TypeVar("P")
Job = Callable[[DictConfig], Any]


def run(argv: Sequence[str], *, prog: str, prepare: Callable[[DictConfig], P], task: Callable[[P, Path], Any]) -> int:
    """Carry out a Hydra command line and return the exit code.

    `prepare` is given a single run's configuration, and raises `UserError` for what is wrong with it;
    what it returns then goes to `task`, with a folder of its own. With `-m`, or where an experiment asks for it, each
    combination does, or dlrun's own launcher conducts the whole sweep.
    """

    def each(cfg: DictConfig) -> Any:
        return task(prepare(cfg), _folder())

    parser, args = parse(argv, prog)
    name = args.config_name or PRIMARY
    with open_hydra(args.config_dir) as hydra, _logging_kept():
        if args.help or args.hydra_help or args.cfg or args.info:
            return _show(hydra, parser, args)
        if args.multirun:
            args.overrides.append("hydra.mode=MULTIRUN")
        cfg = load(hydra, name, args.overrides)
        warn_of_shadowing(cfg, name)
        _check_trust(cfg)
        if cfg.hydra.mode == RunMode.MULTIRUN:
            own = str(cfg.hydra.launcher._target_).startswith(_multirun.OWN)
            return _conducted(hydra, cfg) if own else _sweep(hydra, cfg, args.overrides, each)
        cfg.hydra.mode = RunMode.RUN
        HydraConfig.instance().set_config(cfg)
        prepared = prepare(without_hydra(cfg))
        return _single(hydra, cfg, lambda _: task(prepared, _folder()))


def consult(
    argv: Sequence[str],
    *,
    prog: str,
    use: Callable[[DictConfig], int],
    several: Callable[[DictConfig, Sequence[ComposedJob]], int] | None = None,
) -> int:
    """Carry out a Hydra command line that needs a configuration but no folder, and return the exit code.

    `use` takes one configuration, `several` that of a sweep with its jobs. Raises `UserError` for a sweep without it.
    """
    parser, args = parse(argv, prog)
    name = args.config_name or PRIMARY
    sweep = f"{prog} takes one configuration, and this is a sweep: leave -m out, and give one value a key."
    if args.multirun and several is None:
        raise UserError(sweep)
    with open_hydra(args.config_dir) as hydra, _logging_kept():
        if args.help or args.hydra_help or args.cfg or args.info:
            return _show(hydra, parser, args)
        if args.multirun:
            args.overrides.append("hydra.mode=MULTIRUN")
        cfg = load(hydra, name, args.overrides)
        warn_of_shadowing(cfg, name)
        _check_trust(cfg)
        if cfg.hydra.mode == RunMode.MULTIRUN:
            if several is None:
                raise UserError(sweep)
            return several(cfg, _multirun.listed(hydra, args.overrides, cfg))
        HydraConfig.instance().set_config(cfg)
        return use(without_hydra(cfg))


def parse(argv: Sequence[str], prog: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return Hydra's parser and what it reads from `argv`, options between overrides included.

    Raises `UserError` for options that do not go together or have no meaning here.
    """
    parser = get_args_parser()
    parser.prog, parser.usage = prog, f"{prog} [-m] [OVERRIDE…] [--cfg job] [--config-dir FOLDER] [--help]"
    args = parser.parse_intermixed_args(list(argv))
    if sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.shell_completion))) > 1:
        raise UserError("Only one of --run, --multirun (-m), --cfg, --info and --shell-completion can be given.")
    if args.resolve and not (args.cfg or args.help):
        raise UserError("--resolve goes with --cfg or --help: type `--cfg job --resolve`.")
    if args.config_path or args.experimental_rerun:
        raise UserError(
            "--config-path and --experimental-rerun have no meaning here; --config-dir FOLDER adds a folder."
        )
    if args.shell_completion:
        raise UserError('Completion is installed for all commands at once: eval "$(dlrun -sc install=bash)".')
    return parser, args


def _single(hydra: Hydra, cfg: DictConfig, job: Job) -> int:
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=cfg.hydra.job.config_name)
    failures: list[Exception] = []
    try:
        done = run_job(
            task_function=_recorded(job, failures),
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        )
    except OSError as error:  # of the folder: the task's own errors are in `failures`
        raise UserError(_unwritable(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"The run's folder has no name: {error}") from error
    callbacks.on_run_end(config=cfg, config_name=cfg.hydra.job.config_name, job_return=done)
    return _report(failures)


def _sweep(hydra: Hydra, master: DictConfig, overrides: list[str], job: Job) -> int:
    """Hand a sweep to Hydra's sweeper and a foreign launcher; whatever fails is told once more at the end."""
    name = master.hydra.job.config_name
    # settled here, for a job's own name and the time at which it starts must not move it
    overrides = [*overrides, "hydra.sweep.dir='{}'".format(master.hydra.sweep.dir.replace("'", r"\'"))]
    failures: list[Exception] = []
    try:
        returned = hydra.multirun(name, _recorded(job, failures), overrides)
        failures = failures or [*_failed(returned)]
    except OSError as error:
        raise UserError(_unwritable(error)) from error
    except Exception as error:
        if isinstance(error, DlrunError) and not failures:
            raise  # a job that cannot be composed: none has run
        failures = failures or [error]
    return _report(failures)


def _conducted(hydra: Hydra, master: DictConfig) -> int:
    """Have dlrun's own launcher conduct a sweep."""
    try:
        return _multirun.conduct(hydra, master)
    except OSError as error:
        raise UserError(_unwritable(error)) from error


def _failed(returned: Any) -> Iterator[Exception]:
    """Yield the errors of the jobs that failed in other processes than this one."""
    if isinstance(returned, JobReturn):
        if returned.status == JobStatus.FAILED:
            yield returned._return_value
    elif isinstance(returned, list | tuple):
        for inner in returned:
            yield from _failed(inner)


def _check_trust(cfg: DictConfig) -> None:
    """Grant what a composed configuration trusts, for the user has composed it; check what Hydra would call."""
    trusted = [str(name) for name in cfg.trusted] if OmegaConf.is_list(cfg.get("trusted")) else []
    trust.grant(trusted)
    hydra_targets.check(cfg.hydra, trusted=trusted)


def _folder() -> Path:
    """Return the folder of the job that is running."""
    return Path(HydraConfig.get().runtime.output_dir)


def _recorded(job: Job, failures: list[Exception]) -> Job:
    """Return the job with its failure written to the log and kept, for Hydra would print its own account."""

    def recorded(cfg: DictConfig) -> Any:
        try:
            return job(cfg)
        except Exception as error:
            logging.getLogger("dlrun").exception("The run failed.")
            error.add_note(str(_folder() / f"{JOB}.log"))
            failures.append(error)
            raise

    return recorded


def _report(failures: Sequence[Exception]) -> int:
    for error in failures:
        if environ.get("DLRUN_TRACEBACK") == "1":
            traceback.print_exception(error)
        text = str(error) if isinstance(error, DlrunError) else f"{type(error).__name__}: {error}{place(error)}"
        log = "\n".join(getattr(error, "__notes__", [])[-1:])
        shown = log and not isinstance(error, UserError)
        output.warn(text + (f"\nThe whole story is in {log}; DLRUN_TRACEBACK=1 shows it here." if shown else ""))
    return min((2 if isinstance(error, UserError) else 1 for error in failures), default=0)


def _unwritable(error: OSError) -> str:
    return (
        f"The folder for this run cannot be written: {error.filename or rundir.outputs()}: {error.strerror}."
        "\nSet DLRUN_OUTPUTS to a folder that you may write to."
    )


def _show(hydra: Hydra, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print the help, the configuration or what Hydra knows, and run nothing."""
    name = args.config_name or PRIMARY
    if args.help:
        args.overrides.append(f"hydra.help.app_name='{parser.prog}'")
        hydra.app_help(config_name=name, args_parser=parser, args=args)
    elif args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=parser, args=args)
    elif args.cfg:
        try:
            hydra.show_cfg(name, args.overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)
        except SystemExit:  # no such package, and Hydra has said so
            return UserError.exit_code
    else:
        hydra.show_info(args.info, config_name=name, overrides=args.overrides)
    return 0


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Give logging back as it was, and close the log file: this may not be the process's last run."""
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
