"""Hydra's command line, driven by hand: argv → one configuration → its run, or a sweep.

`@hydra.main` would compose twice, allow no options between overrides, print its own errors, and
leave a folder behind for a configuration that is wrong. Here a single run is composed once, checked,
and only then given a folder.

These private names of Hydra 1.3 are used, each by a test of tests/test_compose.py:
`_internal.hydra.Hydra`, `_internal.config_loader_impl.ConfigLoaderImpl`, `_internal.callbacks.Callbacks`,
`_internal.utils.create_config_search_path` and `get_args_parser`.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import re
import secrets
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dlrun import advice, confdir, console, rundir
from dlrun.errors import ConfigError, DlrunError, UserError

PRIMARY = "dlrun"  # not «config», which a foreign ./conf often has
JOB = "train"  # names the log file, whatever the command

Check = Callable[[DictConfig], None]
Task = Callable[[DictConfig], Any]


def run(argv: Sequence[str], *, prog: str, check: Check, task: Task) -> int:
    """Carry out a Hydra command line and return the exit code.

    A single run's configuration goes to `check`, which raises `UserError` for what is wrong with it,
    then, in a folder of its own, to `task`. With `-m`, or where an experiment asks for it, each
    combination does.
    """
    parser, args = parse(argv, prog)
    name = args.config_name or PRIMARY
    with opened(args.config_dir) as hydra, _logging_kept():
        if args.help or args.hydra_help or args.cfg or args.info:
            return _show(hydra, parser, args, about=(inspect.getdoc(task) or "").partition("\n")[0])
        if args.multirun:
            return _sweep(hydra, name, [*args.overrides, "hydra.mode=MULTIRUN"], _checked(check, task))
        cfg = _loaded(hydra, name, args.overrides)
        _tell_clashes(cfg, name)
        if cfg.hydra.mode == RunMode.MULTIRUN:
            return _sweep(hydra, name, args.overrides, _checked(check, task))
        return _single(hydra, cfg, check, task)


def config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> DictConfig:
    """Return the configuration that `dlrun train` has with these overrides.

    Raises `ConfigError` for a misspelt group, choice or key.
    """
    with opened(config_dir) as hydra:
        return _without_hydra(_loaded(hydra, PRIMARY, overrides))


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
        raise UserError("--resolve goes with --cfg or --help: type «--cfg job --resolve».")
    if args.config_path or args.experimental_rerun:
        raise UserError("--config-path and --experimental-rerun have no meaning here; --config-dir FOLDER adds a folder.")
    if args.shell_completion:
        raise UserError('Completion is installed for all commands at once: eval "$(dlrun -sc install=bash)".')
    return parser, args


@contextmanager
def opened(config_dir: str | None = None) -> Iterator[Hydra]:
    """Open Hydra on the search path: `config_dir`, the user's `./conf`, dlrun's own."""
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name=JOB, config_loader=Loader(search_path(config_dir)))
    GlobalHydra.instance().initialize(hydra)
    OmegaConf.register_new_resolver("dlrun.outputs", lambda: str(rundir.outputs()), replace=True)
    OmegaConf.register_new_resolver("dlrun.id", _new_id, use_cache=True, replace=True)
    try:
        yield hydra
    finally:
        GlobalHydra.instance().clear()


def search_path(config_dir: str | None = None) -> ConfigSearchPath:
    """Return where configuration is looked for; Hydra's plugins, ours among them, add to it.

    Raises `UserError` if `config_dir` is no folder.
    """
    path = create_config_search_path(str(confdir.packaged()))
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder.")
    if config_dir:
        first = next(e.provider for e in path.get_path() if e.provider != "hydra")
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}", SearchPathQuery(provider=first))
    return path


class Loader(ConfigLoaderImpl):
    """Hydra's loader with our errors, and with the run's name settled in all that it composes."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Return the composed configuration; raises `ConfigError` with what to type instead."""
        try:
            cfg = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except advice.COMPOSITION_ERRORS as error:
            raise advice.explain(error, overrides, self, config_name) from error
        _settle_name(cfg)
        return cfg


def _settle_name(cfg: DictConfig) -> None:
    """Set the name to plain text: as given, else the experiment's, else the data set's and the model's."""
    if "name" not in cfg:
        return
    chosen = cfg.hydra.runtime.choices
    default = chosen.get("experiment") or "-".join(str(chosen[g]) for g in ("dataset", "model") if chosen.get(g))
    name = str(cfg.name if cfg.name is not None else str(default).replace("/", "-") or JOB)
    if not re.fullmatch(r"[\w.+=-]*\w[\w.+=-]*", name):
        raise ConfigError(f"«name={name}» is a part of a folder's name: letters, digits and - _ . + = only.")
    OmegaConf.update(cfg, "name", name)


def _new_id() -> str:
    # consonants alone: neither a number, as YAML reads 1e5, nor a word
    return "".join(secrets.choice("bcdfghjkmnpqrstvwxz") for _ in range(8))


def _loaded(hydra: Hydra, name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose once, not knowing yet whether it is a run or a sweep that an experiment asks for."""
    cfg = hydra.config_loader.load_configuration(
        name, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    several = advice.several_values(overrides) if cfg.hydra.mode != RunMode.MULTIRUN else ""
    if several:
        raise ConfigError(several)
    return cfg


def _without_hydra(cfg: DictConfig) -> DictConfig:
    job = cfg.copy()
    with read_write(job), open_dict(job):
        del job["hydra"]
    return job


def _tell_clashes(cfg: DictConfig, name: str) -> None:
    """Say which of dlrun's files the user's own stand in for, and that a foreign primary file is ignored."""
    own = confdir.own()
    if own is None:
        return
    chosen = [f"{group.partition('@')[0]}/{choice}.yaml" for group, choice in cfg.hydra.runtime.choices.items()]
    for file in [f"{name}.yaml", *chosen]:
        if (own / file).is_file() and (confdir.packaged() / file).is_file():
            console.warn(f"conf/{file} of this folder is used in place of dlrun's own.")
    if name != "config" and (own / "config.yaml").is_file():
        console.warn("conf/config.yaml is ignored: a run begins with dlrun.yaml (--config-name config would use it).")


def _single(hydra: Hydra, cfg: DictConfig, check: Check, task: Task) -> int:
    cfg.hydra.mode = RunMode.RUN
    HydraConfig.instance().set_config(cfg)
    check(_without_hydra(cfg))
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=cfg.hydra.job.config_name)
    failures: list[Exception] = []
    try:
        done = run_job(
            task_function=_recorded(task, failures),
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


def _sweep(hydra: Hydra, name: str, overrides: list[str], task: Task) -> int:
    """Hand a sweep to Hydra's sweeper and launcher; whatever fails is told once more at the end."""
    failures: list[Exception] = []
    try:
        hydra.multirun(name, _recorded(task, failures), overrides)
    except OSError as error:
        raise UserError(_unwritable(error)) from error
    except Exception as error:
        if isinstance(error, DlrunError) and not failures:
            raise  # a job that cannot be composed: none has run
        failures = failures or [error]
    return _report(failures)


def _checked(check: Check, task: Task) -> Task:
    def job(cfg: DictConfig) -> Any:
        check(cfg)
        return task(cfg)

    return job


def _recorded(task: Task, failures: list[Exception]) -> Task:
    """Return the task with its failure written to the log and kept, for Hydra would print its own account."""

    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except Exception as error:
            logging.getLogger("dlrun").exception("The run failed.")
            error.add_note(f"{HydraConfig.get().runtime.output_dir}/{JOB}.log")
            failures.append(error)
            raise

    return job


def _report(failures: Sequence[Exception]) -> int:
    for error in failures:
        if environ.get("DLRUN_TRACEBACK") == "1":
            traceback.print_exception(error)
        text = str(error) if isinstance(error, DlrunError) else f"{type(error).__name__}: {error}"
        log = "\n".join(getattr(error, "__notes__", [])[-1:])
        shown = log and not isinstance(error, UserError)
        console.warn(text + (f"\nThe whole story is in {log}; DLRUN_TRACEBACK=1 shows it here." if shown else ""))
    return min((2 if isinstance(error, UserError) else 1 for error in failures), default=0)


def _unwritable(error: OSError) -> str:
    return (
        f"The folder for this run cannot be written: {error.filename or rundir.outputs()}: {error.strerror}."
        "\nSet DLRUN_OUTPUTS to a folder that you may write to."
    )


def _show(hydra: Hydra, parser: argparse.ArgumentParser, args: argparse.Namespace, about: str) -> int:
    """Print the help, the configuration or what Hydra knows, and run nothing."""
    name = args.config_name or PRIMARY
    if args.help:
        print(f"{parser.prog}: {about}\n")
        args.overrides.append(f"hydra.help.app_name='{parser.prog}'")
        hydra.app_help(config_name=name, args_parser=parser, args=args)
    elif args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=parser, args=args)
    elif args.cfg:
        hydra.show_cfg(name, args.overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)
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
