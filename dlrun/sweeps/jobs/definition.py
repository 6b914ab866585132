"""The definition of a sweep: two commands with equal definitions are one sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from dlrun.config.hydra_errors import is_known
from dlrun.errors import DamagedFile, UserError
from dlrun.storage import identity, manifest
from dlrun.storage.files.opening import open_regular
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


def define(master: DictConfig, jobs: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
    """A composed sweep's configuration, swept values, sweeper and sources.

    `jobs` are the overrides of each job, from a sweeper that lists them.
    """
    whole = OmegaConf.to_container(master, resolve=False)
    assert isinstance(whole, dict)
    hydra = whole.pop("hydra")
    given = OverridesParser.create().parse_overrides(list(hydra["overrides"]["task"]))
    config = {str(key): value for key, value in whole.items()}
    return {
        "name": config.get("name"),
        # only keys that a result depends on: with another checkpoint interval it is the same sweep
        "config": identity.essential(config, of_batches=identity.may_be_of_batches(config)),
        # the values that the sweep's own choices do not have are in no configuration
        "sweep": [o.input_line for o in given if o.is_sweep_override() or not _is_in(master, o)],
        # a search of more trials is the same search, made longer
        "sweeper": {k: v for k, v in (hydra["sweeper"] or {}).items() if k != "n_trials"},
        "sources": sources(),
        "torch": version("torch"),
        # a sweeper may read its jobs from a file: another list is another sweep
        "jobs": None if jobs is None else _digest_jobs(jobs, given),
        # the weights that jobs begin with are no part of their configuration
        **({"pretrain": config["pretrain"]} if config.get("pretrain") else {}),
    }


def _is_in(master: DictConfig, override: Override) -> bool:
    key = override.key_or_group
    plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return not plain or key in master.hydra.runtime.choices or is_known(master, key)


def digest(definition: Mapping[str, Any]) -> str:
    """The SHA-256 of a definition."""
    return identity.digest(definition)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs.

    >>> differences({"config": {"seed": 0}, "torch": "2"}, {"config": {"seed": 1}, "torch": "2"})
    ['config.seed: 0 there, 1 here']
    """
    old, new = dict(identity.flatten(there)), dict(identity.flatten(here))
    return [
        f"{key}: {_short(old.get(key, 'nothing'))} there, {_short(new.get(key, 'nothing'))} here"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def earlier_sweep(definition: Mapping[str, Any]) -> SweepDir | None:
    """The newest sweep with this definition."""
    wanted = digest(definition)
    return next((sweep for sweep in reversed(all_sweeps()) if _read_digest(sweep) == wanted), None)


def mismatch(sweep: SweepDir, lines: list[str], *, why: str, how: str = ANEW) -> UserError:
    """An error about a sweep's differences.

    `lines` name them, of which ten are shown; `how` says what to type.
    """
    shown = "\n  ".join(lines[:10] + ["…"] * (len(lines) > 10))
    return UserError(f"{sweep.path}: {why}\n  {shown}\n{how}")


def check_same(sweep: SweepDir, definition: Mapping[str, Any]) -> None:
    """Raise `UserError` if a folder holds another sweep."""
    there = manifest.read(sweep)
    if there.definition != digest(definition):
        lines = differences(there.asked, definition)
        raise mismatch(sweep, lines, why="this folder is of another sweep than was asked for:", how=ELSEWHERE)


def _digest_jobs(jobs: Sequence[Sequence[str]], given: Sequence[Override]) -> str:
    # without the keys that all jobs share: these are in the configuration, where some do not count
    shared = {override.get_key_element() for override in given if not override.is_sweep_override()}
    return identity.digest([[o for o in job if o.partition("=")[0] not in shared] for job in jobs])


def _read_digest(sweep: SweepDir) -> str:
    # near the beginning of the file, which may have megabytes
    try:
        with open_regular(sweep.manifest, "rb") as file:
            found = re.search(rb'"definition": "(\w+)"', file.read(4096))
    except DamagedFile:  # the sweep of nobody
        return ""
    return found[1].decode() if found else ""


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
