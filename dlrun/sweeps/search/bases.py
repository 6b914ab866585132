"""A search's configurations before its values are set: one for each combination of configuration files.

They are kept in the search's folder. So it needs no configuration file once it has begun, and edits of those
change nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import ConfigError
from dlrun.storage.files.record import fits
from dlrun.sweeps.jobs.conditional import fit
from dlrun.sweeps.jobs.expand import Expansion
from dlrun.sweeps.search.space import ChoiceDimension, Space

# each is composed before the search begins, in tens of milliseconds
MOST = 500
"""The most combinations of configuration files in a search."""


@dataclass(frozen=True)
class Bases:
    """Composed configurations, with interpolations, by the values of `keys`."""

    keys: tuple[str, ...]
    configs: dict[tuple[str, ...], dict[str, Any]]

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """A job's configuration; raises `ConfigError` for an invalid override."""
        given = dict(override.split("=", 1) for override in overrides)
        base = self.configs.get(tuple(given.get(key, "") for key in self.keys))
        if base is None:
            raise ConfigError(f"The search has no configuration for {' '.join(overrides)}.")
        # a copy: overrides are set in it
        config = OmegaConf.create(copy.deepcopy(base))
        OmegaConf.set_struct(config, True)
        values = [override for override in overrides if override.split("=", 1)[0] not in self.keys]
        try:
            ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
        except HydraException as error:
            raise ConfigError(str(error)) from error
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"keys": [*self.keys], "configs": [[[*key], config] for key, config in self.configs.items()]}


def from_dict(plain: dict[str, Any]) -> Bases:
    """The inverse of `Bases.to_dict`.

    Raises `KeyError`, `TypeError` or `ValueError` for what is none.
    """
    if not fits(plain["keys"], list[str]) or not fits([config for _, config in plain["configs"]], list[dict[str, Any]]):
        raise ValueError("its configurations are no mappings")
    return Bases(tuple(plain["keys"]), {tuple(key): config for key, config in plain["configs"]})


def compose(space: Space, expansion: Expansion, loader: ConfigLoader) -> tuple[Space, Bases, list[str]]:
    """Compose every combination of configuration files.

    Returns also the space with the keys that some of them lack, and these in words. Raises `ConfigError` if one cannot
    be composed, if there are more than `MOST`, or if none has a key.
    """
    choices = {
        key: dimension
        for key, dimension in space.dimensions.items()
        if isinstance(dimension, ChoiceDimension) and _chooses_files(key, dimension, loader)
    }
    count = prod(len(dimension.values) for dimension in choices.values())
    if count > MOST:
        raise ConfigError(
            f"The search chooses among {count} combinations of {', '.join(choices)}, more than {MOST}: "
            "search over fewer groups at once."
        )
    others = {key: f"{key}={d.text(d.ends[0])}" for key, d in space.dimensions.items() if key not in choices}
    combinations = [*product(*(dimension.values for dimension in choices.values()))]
    jobs = [
        [*space.fixed, *(f"{key}={value}" for key, value in zip(choices, values, strict=True)), *others.values()]
        for values in combinations
    ]
    fitted = fit(expansion, jobs)
    configs, lacks = {}, {}
    for values, place in zip(combinations, fitted.places, strict=True):
        job = fitted.jobs[place]
        config = OmegaConf.to_container(
            expansion.config([o for o in job if o not in others.values()], 0), resolve=False
        )
        assert isinstance(config, dict)
        configs[values] = {str(key): value for key, value in config.items()}
        if absent := tuple(key for key, override in others.items() if override not in job):
            lacks[values] = absent
    return replace(space, choices=tuple(choices), lacks=lacks), Bases(tuple(choices), configs), fitted.left_out


def _chooses_files(key: str, dimension: ChoiceDimension, loader: ConfigLoader) -> bool:
    # also the keys that change more than one value: `name`, packages, and whole parts written as {…}
    group = key.lstrip("+").partition("@")[0]
    parts = any(value.startswith("{") for value in dimension.values)
    return group == "name" or "@" in key or parts or bool(loader.get_group_options(group))
