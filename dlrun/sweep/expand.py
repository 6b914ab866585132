"""The jobs' configurations from their overrides: composed once for each set of choices, then copied and set.

Composing costs Hydra tens of milliseconds a job, a copy with values set two or three. What comes out
is what Hydra composes (tests/test_sweep_expand.py), and whatever is unusual is left to Hydra.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class Expansion:
    """Makes the configuration of a job, without Hydra's own part, from the overrides that a sweeper gives it."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._values: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], DictConfig | None] = {}

    def config(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the configuration of job `number`; raises `ConfigError` where it cannot be composed."""
        try:
            parsed = [self._parse(override) for override in overrides]
        except HydraException:
            return self._as_hydra_does(overrides, number)  # which says what is wrong
        plain = [override for override in parsed if self._sets_a_value(override)]
        if any(override.is_delete() or isinstance(override.value(), dict) for override in parsed):
            return self._as_hydra_does(overrides, number)
        choices = tuple(given for given, p in zip(overrides, parsed, strict=True) if p not in plain)
        base = self._base(choices)
        if base is None:
            return self._as_hydra_does(overrides, number)
        config = copy.deepcopy(base)
        try:
            ConfigLoaderImpl._apply_overrides_to_config(plain, config)
        except HydraException:
            return self._as_hydra_does(overrides, number)
        return config

    def own(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Return those overrides that are not the same for every job of the sweep."""
        asked = OmegaConf.to_container(self._master.hydra.overrides.task)
        assert isinstance(asked, list)
        given = [self._parse(str(override)) for override in asked]
        fixed = {override.get_key_element() for override in given if not override.is_sweep_override()}
        return tuple(o for o in overrides if o.partition("=")[0] not in fixed)

    def _parse(self, override: str) -> Override:
        if override not in self._parsed:
            self._parsed[override] = self._parser.parse_override(override)
        return self._parsed[override]

    def _sets_a_value(self, override: Override) -> bool:
        """Return whether an override is of a value, not of a choice; the name is settled by the loader."""
        key = override.key_or_group
        if key not in self._values:
            self._values[key] = key != "name" and not self._loader.get_group_options(key)
        return self._values[key] and override.package is None

    def _base(self, choices: tuple[str, ...]) -> DictConfig | None:
        """Return what jobs of the same choices share, or None where each takes something from Hydra's part."""
        if choices not in self._composed:
            config = _without_hydra(self._loader.load_sweep_config(self._master, list(choices)))
            self._composed[choices] = None if _asks_hydra(config) else config
        return self._composed[choices]

    def _as_hydra_does(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Compose one job by itself; what it takes from Hydra's part is settled at once."""
        config = self._loader.load_sweep_config(self._master, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            job = _without_hydra(config)
            if _asks_hydra(job):
                OmegaConf.resolve(job)
            return job
        finally:
            HydraConfig.instance().cfg = before


def _without_hydra(config: DictConfig) -> DictConfig:
    job = config.copy()
    with read_write(job), open_dict(job):
        del job["hydra"]
    return job


def _asks_hydra(config: DictConfig) -> bool:
    """Return whether a value is taken from Hydra's part, as `${hydra:job.num}`."""
    return "${hydra" in str(OmegaConf.to_container(config, resolve=False))
