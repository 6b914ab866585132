"""What MLflow is told about a run beside its curves, read from the run's folder."""

from __future__ import annotations

import functools
import getpass
import hashlib
import json
import re
import shlex
import socket
from typing import Any

import yaml

from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary, split_sizes

# MLflow refuses longer ones, and with them the whole call
KEY, PARAM, TAG = 250, 6000, 8000
ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str)


def configuration(run: RunDir) -> dict[str, Any]:
    """Return the composed configuration as plain values; what cannot be resolved here stays as it is written."""
    if not run.config.exists():
        return {}
    written = run.config.read_text(encoding="utf-8")
    plain = _resolved(written) if "${" in written else yaml.load(written, Loader=_loader())  # a safe one
    return {str(name): value for name, value in plain.items()} if isinstance(plain, dict) else {}


def _resolved(written: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create(written)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(config)


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a loader that takes the same text for a number as OmegaConf does, twenty times as fast."""
    from omegaconf._utils import get_yaml_loader

    own = get_yaml_loader()
    fast = getattr(yaml, "CSafeLoader", None)
    return type("Loader", (fast,), {"yaml_implicit_resolvers": own.yaml_implicit_resolvers}) if fast else own


def params(config: dict[str, Any]) -> dict[str, str]:
    """Return the configuration flattened to dotted keys, each value as text that never varies.

    >>> params({"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "seed": None})
    {'optimizer.lr': '0.1', 'optimizer.betas': '[0.9, 0.95]', 'seed': 'null'}
    """
    flat: dict[str, str] = {}
    for name, value in _leaves(config):
        fitting = fit(name, KEY)
        # two keys that MLflow could not tell apart
        fitting = fitting if fitting not in flat else fit(f"{fitting[: KEY - 10]}-{digest(name)}", KEY)
        flat[fitting] = shorten(text(value), PARAM)
    return flat


def tags(run: RunDir, config: dict[str, Any], summary: Summary) -> dict[str, str]:
    """Return where the run comes from and how it stands; the user's own tags are `tracking.tags`."""
    found = {
        "dlrun.id": run.id,
        "dlrun.kind": "job" if run.of_a_sweep else "run",
        "dlrun.folder": str(run.path),
        "dlrun.identity": summary.identity,
        "dlrun.seed": summary.seed,
        "dlrun.parameters": summary.parameters,
        # how a job was run, where that was not in a process of its own
        "dlrun.launcher": summary.launcher,
        "dlrun.stacked": summary.stacked,
    }
    return _fitting(found) | source(summary, config)


def source(summary: Summary, config: dict[str, Any]) -> dict[str, str]:
    """Return what a run and a sweep have in common: who made it, from what, where, and how it stands."""
    return _fitting(
        {
            "mlflow.user": _user(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": command(summary),
            "mlflow.source.git.commit": summary.git.get("commit"),
            "dlrun.git.dirty": summary.git.get("dirty"),
            "dlrun.hostname": summary.hostname or socket.gethostname(),
            "dlrun.test_reads": summary.test_reads,
            "dlrun.status": summary.status if summary else None,
            "dlrun.device": summary.device,
            **{f"version.{name}": value for name, value in summary.versions.items()},
            **((config.get("tracking") or {}).get("tags") or {}),
        }
    )


def _fitting(found: dict[str, Any]) -> dict[str, str]:
    return {fit(str(name), KEY): shorten(text(value), TAG) for name, value in found.items() if value is not None}


def datasets(summary: Summary) -> list[dict[str, Any]]:
    """Return each split as MLflow's fields of a data set; the digest is of the data and their split."""
    data = summary.data
    short = str(data.get("fingerprint") or "")[:16]  # MLflow takes 36 characters, its pages show fewer
    if not short:
        return []
    name = str(data.get("name", "data"))
    return [
        {
            "name": f"{name}/{split}",
            "digest": short,
            "source_type": "dlrun",
            "source": json.dumps({"dataset": name, "split": split, "fingerprint": data["fingerprint"]}),
            "profile": json.dumps({"num_rows": size}),
        }
        for split, size in split_sizes(data).items()
    ]


def finals(summary: Summary, curves: list[str]) -> dict[str, float]:
    """Return the summary's metrics that are no curve of the run: a curve's own points stay as they were logged."""
    return {fit(n, KEY): float(value) for n, value in summary.metrics.items() if n not in curves and value is not None}


def command(summary: Summary) -> str:
    """Return the command line that made the run, as it is typed."""
    given = summary.command or "dlrun train"
    return given if isinstance(given, str) else shlex.join(str(word) for word in given)


def changed(now: dict[str, str], sent: dict[str, str]) -> str:
    """Return which params differ from what was sent first: MLflow's params cannot be changed."""
    lines = [f"{name}: {sent[name]} → {value}" for name, value in now.items() if sent.get(name, value) != value]
    return shorten("\n".join(lines), TAG)


@functools.lru_cache(4096)
def fit(name: str, limit: int) -> str:
    """Return a name that MLflow takes: its characters, no empty part, at most `limit` of them.

    >>> fit("val/top-5 [%]", 250)
    'val/top-5 ___'
    """
    parts = [part for part in re.sub(r"[^\w.\- :/]", "_", name).split("/") if part not in ("", ".", "..")]
    fitting = "/".join(parts) or "_"
    return fitting if len(fitting) <= limit else f"{fitting[: limit - 9]}-{digest(name)}"


def shorten(value: str, limit: int) -> str:
    """Return a text of at most `limit` characters; one that was cut ends with a digest of the whole."""
    return value if len(value) <= limit else f"{value[: limit - 12]}… [{digest(value)}]"


def text(value: Any) -> str:
    """Return a plain value as text: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else ENCODER.encode(value)


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or (prefix and not value):
        return [(prefix, value)]
    children = {f"{prefix}.{name}" if prefix else str(name): child for name, child in value.items()}
    return [leaf for name, child in children.items() for leaf in _leaves(child, name)]


def digest(value: str) -> str:
    """Return eight characters that tell a text from another."""
    return hashlib.sha256(value.encode()).hexdigest()[:8]


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None
