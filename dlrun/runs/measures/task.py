"""The task of a run: that of its data set, unless its loss is of a density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlrun.config import instantiate
from dlrun.errors import ConfigError
from dlrun.losses.nll import is_of_density
from dlrun.types import Data


def for_loss(data: Data, plain: Mapping[str, Any]) -> Data:
    """The data set as the loss takes it: one of a density looks at the inputs alone, without classes and targets.

    Raises `ConfigError` for several views of an image.
    """
    loss = instantiate.resolve(plain["loss"]["_target_"], trusted=plain["trusted"])
    if not is_of_density(loss) or data.spec.task in ("density", "language"):
        return data
    if plain["evaluation"].get("views"):
        raise ConfigError("evaluation.views averages outputs; a mean of log-densities is none. Leave it out.")
    spec = replace(data.spec, task="density", outputs=1, classes=None, class_names=())
    return replace(data, spec=spec, truth=None)
