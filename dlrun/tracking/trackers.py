"""All trackers, by their name in `tracking.backends`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.settings import config_of, setting
from dlrun.tracking.mlflow.tracker import Mlflow
from dlrun.tracking.tensorboard.tracker import Tensorboard
from dlrun.tracking.tracker import Tracker

TRACKERS: dict[str, Tracker] = {tracker.name: tracker for tracker in (Mlflow(), Tensorboard())}


def trackers_of(folder: RunDir | SweepDir) -> list[Tracker]:
    """A folder's trackers; if tracking was off, the configured ones."""
    names = folder.summary().uploaded or dict.fromkeys(_backends(config_of(folder)))
    # a folder of another version may name a tracker that this one lacks
    return [TRACKERS[name] for name in names if name in TRACKERS]


def unsent(configs: Iterable[Mapping[str, Any]]) -> dict[str, bool] | None:
    """A new folder's `uploaded`: all false, or None without tracking."""
    tracked = [config for config in configs if config["tracking"]["enabled"]]
    return {name: False for config in tracked for name in _backends(config)} if tracked else None


def _backends(config: Mapping[str, Any]) -> Sequence[str]:
    return list(setting(config, "backends", ["mlflow"]))
