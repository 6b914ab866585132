"""YAML read fast, with OmegaConf's idea of a number."""

from __future__ import annotations

import functools
import re
from typing import Any

import yaml

MOST_VALUES = 1 << 17
"""That a text may have once its aliases are copies; a whole configuration has a few hundred."""

_ALIAS = re.compile(r"[\s,:[{-]\*\w")


def parse(text: str) -> Any:
    """The content of a YAML text; raises `yaml.YAMLError`."""
    check_aliases(text)
    try:
        return yaml.load(text, Loader=_loader())  # a safe one
    except yaml.YAMLError:
        from omegaconf._utils import get_yaml_loader

        # libyaml refuses the escapes of a path that is no UTF-8
        return yaml.load(text, Loader=get_yaml_loader())  # a safe one too


def check_aliases(text: str) -> None:
    """Raise `yaml.YAMLError` for a text whose aliases make it endless, or thousands of times as long."""
    if not _ALIAS.search(text):
        return
    counts: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if isinstance(node, yaml.CollectionNode):
            key = id(node)
            if key not in counts:
                # met again within itself
                counts[key] = MOST_VALUES + 1
                inner = [each for pair in node.value for each in (pair if isinstance(pair, tuple) else (pair,))]
                counts[key] = 1 + sum(map(count, inner))
            return counts[key]
        return 1

    root = yaml.compose(text, Loader=_loader())
    if root is not None and count(root) > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases (*) stand for more than {MOST_VALUES:,} values")


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """A fast YAML loader with OmegaConf's idea of a number."""
    from omegaconf._utils import get_yaml_loader

    own = get_yaml_loader()
    # written in C: twenty times as fast as OmegaConf's; some builds of PyYAML lack it
    fast = getattr(yaml, "CSafeLoader", None)
    return type("Loader", (fast,), {"yaml_implicit_resolvers": own.yaml_implicit_resolvers}) if fast else own
