"""The group `tracking` of a folder's configuration. Older folders lack some of its keys, or all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlrun.storage import manifest, run_config
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir


def setting(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """A value of the group.

    >>> setting({"tracking": {"enabled": False}}, "enabled", True), setting({}, "enabled", True)
    (False, True)
    """
    group = config.get("tracking")
    # of a folder of somebody else the configuration may have anything there
    return group.get(name, default) if isinstance(group, Mapping) else default


def experiment_of(config: Mapping[str, Any]) -> str:
    """The name of the experiment at the trackers."""
    return str(setting(config, "experiment", "dlrun"))


def config_of(folder: RunDir | SweepDir) -> Mapping[str, Any]:
    """The configuration of a run, or of a sweep's first job; empty if there is none yet.

    Raises `DamagedFile`.
    """
    if isinstance(folder, RunDir):
        return run_config.plain(folder)
    jobs = manifest.read(folder).jobs
    return jobs[0].config if jobs else {}
