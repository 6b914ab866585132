"""The data set of the jobs in one process, loaded once while successive jobs have the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from dlrun.runs.build import Built
from dlrun.runs.parts import make_dataset
from dlrun.storage import identity
from dlrun.sweeps.pool.task import Task
from dlrun.types import Data


class SharedData:
    """Loads data sets, and keeps the last."""

    def __init__(self) -> None:
        self._key = ""
        self._data: Data | None = None

    def __call__(self, config: dict[str, Any]) -> Data:
        """The data set of a configuration, as `make_dataset` loads it."""
        # the device too, for `keep` leaves a copy on it
        key = identity.digest([config["dataset"], config["trusted"], config["trainer"]["device"]])
        if key != self._key or self._data is None:
            self._data = None  # memory may not hold two
            self._key, self._data = key, make_dataset(config)
        return self._data

    def keep(self, built: Built) -> None:
        """Keep this run's copy of the data set instead."""
        if not built.trainer.fast:  # with `fast` it is a small part
            self._data = built.data

    def share(self, task: Task) -> Task:
        """The task with its data set from here.

        Its call is one of `sweeps.job`, with an argument `load`.
        """
        return replace(task, call=partial(cast("Callable[..., Any]", task.call), load=self))
