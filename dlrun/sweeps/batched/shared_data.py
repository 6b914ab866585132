"""The data set that jobs in one process share: it is loaded once for as many of them as follow one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

from dlrun.runs.build import Built, dataset
from dlrun.storage import identity
from dlrun.sweeps.pool.task import Task
from dlrun.types import Data


class SharedData:
    """Loads the data sets of configurations, as `build.dataset` does, and keeps the last."""

    def __init__(self) -> None:
        self._key = ""
        self._data: Data | None = None

    def __call__(self, config: dict[str, Any]) -> Data:
        """Return the data set of a checked configuration; raises `UserError` as `build.dataset` does."""
        key = identity.digest([config["dataset"], config["trusted"], config["trainer"]["device"]])
        if key != self._key or self._data is None:
            self._data = None  # two of them may be more than the memory holds
            self._key, self._data = key, dataset(config)
        return self._data

    def keep(self, built: Built) -> None:
        """Keep the data set of a run, the last that was loaded, where the run has moved it to."""
        if not built.trainer.fast:  # which sees a part of it
            self._data = built.data

    def tasks(self, tasks: Iterable[Task | None]) -> Iterator[Task | None]:
        """Yield tasks whose calls (of `sweep.job`) take their data sets from here."""
        for task in tasks:
            yield task and replace(task, call=partial(cast("Callable[..., Any]", task.call), load=self))
