"""Calls of dlrun from a Python process of the user's, which finds itself afterwards as it was."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dlrun.commands.train import own_modules
from dlrun.config import paths
from dlrun.config.hydra_errors import RUN_ALL
from dlrun.errors import ConfigError, UserError
from dlrun.randomness import preserve_generators
from dlrun.runs.weights import mlflow_model
from dlrun.storage.machine import as_typed, check_single
from dlrun.sweeps.batched.isolation import restored_torch_settings
from dlrun.sweeps.jobs import pretrained

_busy = threading.Lock()

ONCE = (paths.came_with_runs, pretrained.run_of, mlflow_model.cached_model)
"""What a command finds out once, and another call anew: folders, runs and models may have changed."""


@contextmanager
def session(function: str, overrides: Sequence[str], *, command: Sequence[str]) -> Iterator[None]:
    """Train in this process, by a function of dlrun's.

    `command` and `overrides` together are the command line that does the same. Raises `UserError` while another thread
    trains: the global generators are seeded at each step.
    """
    check_single(f"dlrun.{function}(…)")
    _check(function, overrides)
    if not _busy.acquire(blocking=False):
        raise UserError(
            f"dlrun.{function}: another thread of this process is training, and a process trains one run at a time. "
            "Wait for it, or use another process; dlrun.sweep trains many runs at once."
        )
    try:
        # what an earlier run has left in reference cycles would stay on the GPU
        gc.collect()
        begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpus = range(torch.cuda.device_count()) if begun else ()
        with (
            as_typed(*command, *overrides),
            torch.random.fork_rng(gpus),
            preserve_generators(),
            restored_torch_settings(),
            own_modules.as_on_disk(),
        ):
            for known in ONCE:
                known.cache_clear()
            paths.enable_user_modules()
            yield
    except ConfigError as error:
        if RUN_ALL not in str(error):
            raise
        raise ConfigError(str(error).replace(RUN_ALL, "Call dlrun.sweep to run them all.")) from None
    finally:
        _busy.release()


def _check(function: str, overrides: Sequence[str]) -> None:
    for given in overrides:
        if not isinstance(given, str):
            raise UserError(f'dlrun.{function}: {given!r} is no text. Type for example "optimizer.lr=0.01".')
        if given.startswith("-"):
            raise UserError(
                f'dlrun.{function}: "{given}" is an option of the command line. dlrun.sweep trains several runs; '
                'config_dir="FOLDER" adds a folder of configurations.'
            )
