"""The environment variables that a configuration reads."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc


def variables(config: DictConfig) -> list[str]:
    """The names of the variables, found by resolving each value.

    >>> variables(OmegaConf.create({"a": "${oc.env:HOME}", "b": "${oc.decode:${oc.env:${c},1}}", "c": "DEPTH"}))
    ['HOME', 'DEPTH']
    """
    found: list[str] = []

    def note(name: Any, *default: Any) -> Any:
        found.append(str(name))
        return os.environ.get(str(name), *default[:1])

    OmegaConf.register_new_resolver("oc.env", note, replace=True)
    try:
        _resolve_each(config)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    return found


def _resolve_each(node: Any) -> None:
    # one by one: what does not resolve hides no other
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        value = None
        with suppress(OmegaConfBaseException, RecursionError):
            value = node[key]
        if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(node, key):
            _resolve_each(value)
