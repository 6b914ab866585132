"""A run beside its curves: configuration, origin, status, data sets. Read from the run's folder."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlrun.storage.identity import sortable
from dlrun.storage.overlap import describe_known
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary, split_sizes
from dlrun.terminal.escape import encodable
from dlrun.tracking.content.settings import setting

# with sorted keys, equal values are equal texts
ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str)


class Dataset(NamedTuple):
    """One split of a run's data; all share the fingerprint."""

    name: str
    split: str
    fingerprint: str
    size: int


@dataclass(frozen=True)
class Metadata:
    """A run or a sweep beside its curves.

    `params` is the configuration by dotted key. `tags` begin with `dlrun.` or `version.`, but for the user's own.
    `description` is Markdown; without one, the last stays. Trackers cut names and values to their own lengths.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[Dataset] = ()
    description: str = ""

    def __post_init__(self) -> None:
        # a path may be no UTF-8; no tracker takes such a text
        for name in ("params", "tags"):
            texts = {encodable(key): encodable(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, texts)
        object.__setattr__(self, "description", encodable(self.description))


def params(config: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a configuration to dotted keys and texts.

    >>> params({"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "seed": None})
    {'optimizer.lr': '0.1', 'optimizer.betas': '[0.9, 0.95]', 'seed': 'null'}
    """
    return {name: text(value) for name, value in _leaves(config)}


def tags(run: RunDir, config: Mapping[str, Any], summary: Summary) -> dict[str, str]:
    """A run's tags: identity, origin, status, the user's own."""
    found = {
        "dlrun.id": run.id,
        "dlrun.folder": str(run.path),
        "dlrun.identity": summary.identity,
        "dlrun.seed": summary.seed,
        "dlrun.parameters": summary.parameters,
        "dlrun.launcher": summary.launcher,
        "dlrun.stacked": summary.stacked,
        "dlrun.stopped": ": ".join(summary.stopped.values()) or None,
        "dlrun.init_from": summary.origin.get("init_from"),
        "dlrun.init_from.known": "; ".join(describe_known(summary.origin)) or None,
        "dlrun.init_from.unknown": "; ".join(summary.origin.get("unknown", ())) or None,
    }
    return _texts(found) | origin(summary, config)


def origin(summary: Summary, config: Mapping[str, Any]) -> dict[str, str]:
    """The tags of runs and sweeps alike: origin, status, versions."""
    return _texts(
        {
            "dlrun.user": _user(),
            "dlrun.command": command(summary),
            "dlrun.git.commit": summary.git.get("commit"),
            "dlrun.git.dirty": summary.git.get("dirty"),
            "dlrun.hostname": summary.hostname or socket.gethostname(),
            "dlrun.test_reads": summary.test_reads,
            "dlrun.status": summary.status if summary else None,
            "dlrun.device": summary.device,
            **{f"version.{name}": value for name, value in summary.versions.items()},
            # the user's own may replace those above
            **(setting(config, "tags", None) or {}),
        }
    )


def datasets(summary: Summary) -> list[Dataset]:
    """The non-empty splits of a run's data."""
    data = summary.data
    if not data.get("fingerprint"):
        return []
    name, fingerprint = data.get("name", "data"), data["fingerprint"]
    return [Dataset(name, split, fingerprint, size) for split, size in split_sizes(data).items()]


def command(summary: Summary) -> str:
    """The command line of the run, to type again."""
    return summary.command or "dlrun train"


def text(value: Any) -> str:
    """A plain value as text: a string itself, else JSON."""
    return value if isinstance(value, str) else ENCODER.encode(sortable(value))


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): text(value) for name, value in found.items() if value is not None}


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    # an empty mapping is a value, but for an empty configuration
    if not isinstance(value, dict) or (prefix and not value):
        return [(prefix, value)]
    children = {f"{prefix}.{name}" if prefix else str(name): child for name, child in value.items()}
    return [leaf for name, child in children.items() for leaf in _leaves(child, name)]


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None
