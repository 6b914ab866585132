"""The configurations that trials are made of: one for each combination of choices among files, kept with the search.

So a search needs no configuration file once it has begun, and one that is edited meanwhile changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import ConfigError
from dlrun.sweeps.expand import Expansion
from dlrun.sweeps.search.space import Choice, Space

MOST = 500
"""Combinations of choices among files, of which each is composed once before a search begins."""


@dataclass(frozen=True)
class Bases:
    """Composed configurations by the choices made for `keys`, interpolations as they are."""

    keys: tuple[str, ...]
    configs: dict[tuple[str, ...], dict[str, Any]]

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a job; raises `ConfigError` if an override cannot be applied."""
        given = dict(override.split("=", 1) for override in overrides)
        config = OmegaConf.create(copy.deepcopy(self.configs[tuple(given[key] for key in self.keys)]))
        OmegaConf.set_struct(config, True)
        values = [override for override in overrides if override.split("=", 1)[0] not in self.keys]
        try:
            ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
        except HydraException as error:
            raise ConfigError(str(error)) from error
        return config

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, of which `of` makes it again."""
        return {"keys": [*self.keys], "configs": [[[*key], config] for key, config in self.configs.items()]}


def of(plain: dict[str, Any]) -> Bases:
    """Return the configurations that `Bases.plain` described."""
    return Bases(tuple(plain["keys"]), {tuple(key): config for key, config in plain["configs"]})


def composed(space: Space, expansion: Expansion, loader: ConfigLoader) -> Bases:
    """Compose every combination of choices among files.

    Raises `ConfigError` where one cannot be composed, or if there are too many.
    """
    choices = {
        key: d for key, d in space.dimensions.items() if isinstance(d, Choice) and _chooses_files(key, d, loader)
    }
    count = prod(len(dimension.values) for dimension in choices.values())
    if count > MOST:
        raise ConfigError(
            f"The search chooses among {count} combinations of {', '.join(choices)}, more than {MOST}: "
            "search over fewer groups at once."
        )
    configs = {}
    for values in product(*(dimension.values for dimension in choices.values())):
        chosen = [f"{key}={value}" for key, value in zip(choices, values, strict=True)]
        config = OmegaConf.to_container(expansion.config([*space.fixed, *chosen], 0), resolve=False)
        assert isinstance(config, dict)
        configs[values] = {str(key): value for key, value in config.items()}
    return Bases(tuple(choices), configs)


def _chooses_files(key: str, dimension: Choice, loader: ConfigLoader) -> bool:
    """Return whether a key's values are files of a group, or whole parts of a configuration."""
    group = key.lstrip("+").partition("@")[0]
    parts = any(value.startswith("{") for value in dimension.values)
    return group == "name" or "@" in key or parts or bool(loader.get_group_options(group))
