"""The jobs' configurations from their overrides: composed once for each set of choices, then copied and set.

Hydra takes tens of milliseconds to compose a job; a copy with values set takes one or two. The result is the same
(tests/sweeps/test_expand.py), and all unusual overrides are left to Hydra.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from dlrun.config.compose import without_hydra
from dlrun.config.hydra_errors import is_known


class Expansion:
    """Makes jobs' configurations, without Hydra's part, from their overrides."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        # by key: whether an override of it sets a value, and chooses no file
        self._values: dict[str, bool] = {}
        given = [self._parse(str(override)) for override in master.hydra.overrides.task]
        # without those that the sweep's own choices do not have, which are in no configuration yet
        self._fixed = {o.input_line: o for o in given if not o.is_sweep_override() and self._is_set(o)}
        # by the choices of files
        self._composed: dict[tuple[str, ...], bytes | None] = {}

    def config(self, overrides: Sequence[str], number: int) -> DictConfig:
        """A job's configuration; raises `ConfigError` if it cannot be composed."""
        try:
            parsed = [self._parse(override) for override in overrides]
        except HydraException:
            return self._compose_whole(overrides, number)  # which raises the error to show
        # deletions and whole parts are rare: Hydra composes those
        if any(override.is_delete() or isinstance(override.value(), dict) for override in parsed):
            return self._compose_whole(overrides, number)
        choices = tuple(o for o, p in zip(overrides, parsed, strict=True) if not self._sets_a_value(p))
        # a job without choices of its own starts from the sweep's configuration
        shared = all(choice in self._fixed for choice in choices)
        base = self._base(() if shared else choices)
        if base is None:
            return self._compose_whole(overrides, number)
        given = [p for o, p in zip(overrides, parsed, strict=True) if o not in (self._fixed if shared else choices)]
        config: DictConfig = pickle.loads(base)
        try:
            ConfigLoaderImpl._apply_overrides_to_config(given, config)
        except HydraException:
            return self._compose_whole(overrides, number)
        return config

    def own(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """The overrides not shared by all jobs."""
        # by value: the job of a block may have another one
        fixed = {o.get_key_element(): o.get_value_element_as_str() for o in self._fixed.values()}
        return tuple(o for o in overrides if o.partition("=")[2] != fixed.get(o.partition("=")[0]))

    def choices(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """The overrides that decide which keys a job has: choices of files, whole parts, classes and deletions."""
        parsed = {o: self.parse(o) for o in overrides}
        return tuple(o for o, p in parsed.items() if p is None or self._decides_keys(p))

    def compose_choices(self, choices: tuple[str, ...]) -> DictConfig:
        """The configuration of these choices, without other values."""
        base = self._base(choices) if all(map(self._is_choice, choices)) else None
        if base is not None:
            config: DictConfig = pickle.loads(base)
            return config
        return without_hydra(self._loader.load_sweep_config(self._master, list(choices)))

    def parse(self, override: str) -> Override | None:
        """An override, None if it cannot be read."""
        try:
            return self._parse(override)
        except HydraException:
            return None

    def _decides_keys(self, override: Override) -> bool:
        if not self._sets_a_value(override) or override.is_delete():
            return True
        return isinstance(override.value(), dict) or override.key_or_group.endswith("._target_")

    def _is_choice(self, override: str) -> bool:
        parsed = self.parse(override)
        return parsed is not None and not self._sets_a_value(parsed)

    def _is_set(self, override: Override) -> bool:
        # what is added or chosen always is
        return not self._sets_a_value(override) or override.is_add() or is_known(self._master, override.key_or_group)

    def _parse(self, override: str) -> Override:
        if override not in self._parsed:
            self._parsed[override] = self._parser.parse_override(override)
        return self._parsed[override]

    def _sets_a_value(self, override: Override) -> bool:
        # not of a choice, and not `name`, which the loader derives from the choices
        key = override.key_or_group
        if key not in self._values:
            self._values[key] = key != "name" and not self._loader.get_group_options(key)
        return self._values[key] and override.package is None

    def _base(self, choices: tuple[str, ...]) -> bytes | None:
        """The pickled configuration of jobs with these choices.

        None if its values depend on Hydra's part, which each job has of its own.
        """
        # unpickling takes a seventh of the time of a deep copy
        if choices not in self._composed:
            whole = self._loader.load_sweep_config(self._master, list(choices)) if choices else self._master
            config = without_hydra(whole)
            self._composed[choices] = None if _reads_hydra(config) else pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
        return self._composed[choices]

    def _compose_whole(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Compose one job, and resolve its values from Hydra's part."""
        config = self._loader.load_sweep_config(self._master, list(overrides))
        with open_dict(config):
            # Hydra's own launchers set these too, after the composition
            config.hydra.job.id = config.hydra.job.num = number
        # `${hydra:…}` reads this global
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            job = without_hydra(config)
            _resolve_hydra(job)
            return job
        finally:
            HydraConfig.instance().cfg = before


def _resolve_hydra(node: Any) -> None:
    """Resolve the values from Hydra's part; all others stay references."""
    for key in [*node] if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key):
            if "${hydra" in str(node._get_node(key)._value()):
                node[key] = node[key]
        elif OmegaConf.is_config(inner := node._get_node(key)) and not inner._is_none():
            _resolve_hydra(inner)


def _reads_hydra(config: DictConfig) -> bool:
    # as ${hydra:job.num}
    return "${hydra" in str(OmegaConf.to_container(config, resolve=False))
