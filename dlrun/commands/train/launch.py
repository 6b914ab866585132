"""Several processes for one run, started by torchrun's elastic launcher."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from dlrun.commands.train import loopback
from dlrun.errors import ConfigError, RunError
from dlrun.execution.ranks import world
from dlrun.terminal.format import counted

GRACE = 600
"""Seconds for the processes to finish their step and save after Ctrl-C or SIGTERM."""


class NeedsProcesses(Exception):
    """A run that was composed in one process asks for `devices` of them; its `folder` is not made yet."""

    def __init__(self, devices: int, folder: Path) -> None:
        super().__init__(f"trainer.devices={devices}")
        self.devices, self.folder = devices, folder


def check(devices: Any, device: str, folder: Path) -> None:
    """Raise `NeedsProcesses` if a run asks for processes and torchrun has started none.

    Raises `ConfigError` for a number that cannot be started, or is another than torchrun's.
    """
    if not isinstance(devices, int) or devices < 1:
        raise ConfigError(f"trainer.devices={devices}: expected a number of devices, at least 1.")
    size = world.size()
    if devices not in (1, size) and size > 1:
        raise ConfigError(
            f"trainer.devices={devices}, and torchrun has started {size} processes. Type trainer.devices={size}."
        )
    if devices == 1 or size > 1:
        return
    if ":" in device:
        raise ConfigError(f"trainer.device={device} is one device, and trainer.devices={devices}. Leave out one.")
    found = torch.cuda.device_count()
    if found and device in ("auto", "cuda") and devices > found:
        raise ConfigError(
            f"trainer.devices={devices}: this machine has {counted(found, 'GPU')}. Type trainer.devices={found}, or "
            "trainer.device=cpu."
        )
    raise NeedsProcesses(devices, folder)


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `dlrun ARGUMENTS` in so many processes of this machine; returns the first one's exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # the first process says what is wrong
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices)))
    loopback.stay_on_loopback()
    options: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": devices,
        "run_id": uuid.uuid4().hex,
        "rdzv_backend": loopback.BACKEND,
        "rdzv_endpoint": loopback.HOST,
        "max_restarts": 0,
        "shutdown_timeout": GRACE,
    }
    known = {field.name for field in fields(LaunchConfig)}
    config = LaunchConfig(**{name: value for name, value in options.items() if name in known})
    try:
        elastic_launch(config, sys.executable)("-m", "dlrun", *arguments)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        code = codes.get(0, RunError.exit_code)
        return code if code > 0 else RunError.exit_code
    except SignalException as signalled:
        return 128 + int(signalled.sigval)
    return 0
