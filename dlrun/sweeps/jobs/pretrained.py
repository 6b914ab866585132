"""A run that others begin with, trained before them: `pretrain=[OVERRIDE, …] init_from=pretrained`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dlrun.config import compose
from dlrun.errors import ConfigError, RunError
from dlrun.runs.build import build
from dlrun.storage.identity import Identity
from dlrun.storage.lookup import all_runs, read_each
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output

NAME = "pretrained"


def begin_with_pretrained(config: DictConfig, *, train: bool = True) -> DictConfig:
    """A configuration with the run that it begins with, if that is `pretrained`.

    A finished run of the same identity is taken, else it is trained; not with `train=False`: then the configuration
    begins at random. Raises `UserError` for a run that cannot be trained.
    """
    if config.get("init_from") != NAME:
        return config
    overrides = OmegaConf.to_container(config)["pretrain"] if "pretrain" in config else None  # type: ignore[call-overload, index]
    if not isinstance(overrides, list) or not overrides:
        raise ConfigError(
            "init_from=pretrained begins with the run of `pretrain`, which is not given. Type for example "
            "'pretrain=[\"+experiment=fashion_mnist\"]', or init_from=RUN."
        )
    # a try of two steps begins with one
    fast = ["trainer.fast=true"] if OmegaConf.select(config, "trainer.fast") is True else []
    run = run_of((*map(str, overrides), *fast), train=train)
    config = config.copy()
    config.init_from = run
    return config


@cache
def run_of(overrides: tuple[str, ...], *, train: bool) -> str | None:
    """The path of the run of these overrides, trained if it is not there; None if it would have to be."""
    _check(overrides)
    identity, typed = _identity(overrides), shlex.join(("dlrun", "train", *overrides))
    run = _finished(identity)
    if run is None and not train:
        output.say(
            f"`dlrun train` trains the run first that others begin with: {typed}. Here they begin at random, and it "
            "is in no estimate."
        )
        return None
    if run is None:
        output.say(f"first the run that others begin with: {typed}")
        _train(overrides, typed)
        run = _finished(identity)
    if run is None:
        raise RunError(f"{typed} has left no finished run of the identity {identity.hash[:12]}….")
    path = os.path.relpath(run.path) if run.path.is_relative_to(Path.cwd()) else str(run.path)
    output.say(f"begun with: {path}")
    return path


def _check(overrides: tuple[str, ...]) -> None:
    """Raise `ConfigError` for overrides that ask for more than a run.

    They may stand in a folder of somebody else: what only a person may give on the command line does not count here.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"pretrain={list(overrides)}: {error}") from error
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        if key.partition(".")[0].partition("/")[0] in ("hydra", "trusted") or "${" in str(override.input_line):
            raise ConfigError(
                f"pretrain: `{override.input_line}` has no place there: it is of no run, or reads others."
            )
        if override.is_sweep_override():
            raise ConfigError(f"pretrain: `{override.input_line}` has several values, and others begin with one run.")


def _identity(overrides: tuple[str, ...]) -> Identity:
    config = compose.config(overrides)
    if config.get("init_from") == NAME:
        raise ConfigError("pretrain: its run begins with `pretrained` itself. Give it another beginning.")
    return build(config).identity


def _finished(identity: Identity) -> RunDir | None:
    """The newest finished run of an identity."""
    for run, summary in read_each(reversed(all_runs()), RunDir.summary):
        if (
            summary.identity == identity.hash
            and run.status() == "finished"
            and (run.best.exists() or run.last.exists())
        ):
            return run
    return None


def _train(overrides: tuple[str, ...], typed: str) -> None:
    # a process of its own: it sets threads and handlers of signals for itself
    code = subprocess.run([sys.executable, "-m", "dlrun", "train", *overrides], check=False).returncode
    if code in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0 or code > 128:  # by a signal, which this process has got too
        raise SystemExit(code if code > 0 else 128 - code)
    if code:
        raise RunError(f"The run that others begin with has failed (exit code {code}): {typed}")
