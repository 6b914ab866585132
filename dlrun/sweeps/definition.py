"""What a sweep was asked to be: two commands that ask for the same are one sweep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import UserError
from dlrun.storage import identity, manifest
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.sources import sources
from dlrun.storage.sweepdir import SweepDir

ANEW = (
    "To run all anew, in a folder of its own, give the command with sweep.fresh=true, and without hydra.sweep.dir "
    "if it has one."
)
ELSEWHERE = (
    "Leave out hydra.sweep.dir, and the sweep gets a folder of its own; or give it a folder that is not there yet."
)


def asked(master: DictConfig, jobs: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
    """Return what a composed sweep asks for: the configuration, what is swept, how, and by which dlrun."""
    whole = OmegaConf.to_container(master, resolve=False)
    assert isinstance(whole, dict)
    hydra = whole.pop("hydra")
    given = OverridesParser.create().parse_overrides(list(hydra["overrides"]["task"]))
    config = {str(key): value for key, value in whole.items()}
    return {
        "name": config.get("name"),
        "config": identity.essential(config),
        "sweep": [override.input_line for override in given if override.is_sweep_override()],
        # a search of more trials is the same search, made longer
        "sweeper": {k: v for k, v in (hydra["sweeper"] or {}).items() if k != "n_trials"},
        "sources": sources(),
        "torch": version("torch"),
        # a sweeper may read them from a file, as from a CSV: another list is another sweep
        "jobs": None if jobs is None else _digest_of(jobs, given),
    }


def _digest_of(jobs: Sequence[Sequence[str]], given: Sequence[Override]) -> str:
    # without the keys that all jobs share: these are in the configuration, where some do not count
    shared = {override.get_key_element() for override in given if not override.is_sweep_override()}
    return identity.digest([[o for o in job if o.partition("=")[0] not in shared] for job in jobs])


def definition(what: Mapping[str, Any]) -> str:
    """Return the hash that two commands share if they ask for the same."""
    return identity.digest(what)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a line for each key in which two sweeps, or what two rest on, differ.

    >>> differences({"config": {"seed": 0}, "torch": "2"}, {"config": {"seed": 1}, "torch": "2"})
    ['config.seed: 0 there, 1 here']
    """
    old, new = dict(_flat(there)), dict(_flat(here))
    return [
        f"{key}: {_short(old.get(key, 'nothing'))} there, {_short(new.get(key, 'nothing'))} here"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def earlier(wanted: str) -> SweepDir | None:
    """Return the newest sweep with this definition."""
    return next((sweep for sweep in reversed(all_sweeps()) if _definition(sweep) == wanted), None)


def refuse(sweep: SweepDir, lines: list[str], *, why: str, how: str = ANEW) -> UserError:
    """Return the error of a sweep that is not the one that was asked for; `how` says what to type instead."""
    shown = "\n  ".join(lines[:10] + ["…"] * (len(lines) > 10))
    return UserError(f"{sweep.path}: {why}\n  {shown}\n{how}")


def check_same(sweep: SweepDir, wanted: Mapping[str, Any]) -> None:
    """Raise `UserError`, with the difference, if a sweep's folder is of another sweep than the one asked for."""
    there = manifest.read(sweep)
    if there.definition != definition(wanted):
        lines = differences(there.asked, wanted)
        raise refuse(sweep, lines, why="this folder is of another sweep than was asked for:", how=ELSEWHERE)


def _definition(sweep: SweepDir) -> str:
    # near the beginning of the file, which may be megabytes long
    with sweep.manifest.open() as file:
        found = re.search(r'"definition": "(\w+)"', file.read(4096))
    return found[1] if found else ""


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
