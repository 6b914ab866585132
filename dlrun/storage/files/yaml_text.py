"""YAML read fast, with OmegaConf's idea of a number."""

from __future__ import annotations

import functools
from typing import Any

import yaml


def parse(text: str) -> Any:
    """The content of a YAML text; raises `yaml.YAMLError`."""
    try:
        return yaml.load(text, Loader=_loader())  # a safe one
    except yaml.YAMLError:
        from omegaconf._utils import get_yaml_loader

        # libyaml refuses the escapes of a path that is no UTF-8
        return yaml.load(text, Loader=get_yaml_loader())  # a safe one too


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """A fast YAML loader with OmegaConf's idea of a number."""
    from omegaconf._utils import get_yaml_loader

    own = get_yaml_loader()
    # written in C: twenty times as fast as OmegaConf's; some builds of PyYAML lack it
    fast = getattr(yaml, "CSafeLoader", None)
    return type("Loader", (fast,), {"yaml_implicit_resolvers": own.yaml_implicit_resolvers}) if fast else own
