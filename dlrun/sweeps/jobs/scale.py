"""One dial for a whole grid: the values of its keys, each multiplied by a power of the dial.

`hydra.sweeper.scale=4` with `scaled: {model.width: [0.5, 8], dataset.train_size: [1, 1]}` trains models of twice the
width, and so of about four times the parameters, on four times the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.errors import ConfigError


def scale_number(value: float, scale: float, power: float, multiple: int) -> int:
    """value · scale^power, rounded to a positive multiple of `multiple`.

    >>> scale_number(24, 4, 0.5, 8), scale_number(24, 0.01, 0.5, 8), scale_number(1000, 2.5, 1, 1)
    (48, 8, 2500)
    """
    steps: float = value * scale**power / multiple
    return max(1, round(steps)) * multiple


def scale_values(
    params: Mapping[str, Any], scale: float, powers: Mapping[str, Sequence[float]], config: DictConfig | None
) -> dict[str, Any]:
    """The values of a grid at `scale`.

    `powers` has the power and the multiple of each key. A key outside the grid starts from the configuration's value.
    Raises `ConfigError` for a scale of 0 or below, and for values that are not numbers.

    >>> config = OmegaConf.create({"steps": 9})
    >>> scale_values({"width": "16,24", "seed": "0"}, 4, {"width": [0.5, 8], "steps": [1, 1]}, config)
    {'width': '32,48', 'seed': '0', 'steps': '36'}
    """
    if not 0 < scale < float("inf"):
        raise ConfigError(f"hydra.sweeper.scale={scale}: expected a number above 0; 1 is the grid as it is written.")
    if scale == 1:
        # as it is written: to scale by 1 would still round to multiples
        return dict(params)
    values = {key: params.get(key, OmegaConf.select(config or OmegaConf.create(), key)) for key in powers}
    return dict(params) | {key: _each(key, values[key], scale, *powers[key]) for key in powers}


def _each(key: str, values: Any, scale: float, power: float, multiple: float) -> str:
    try:
        numbers = [float(value) for value in str(values).split(",")]
    except ValueError:
        raise ConfigError(
            f"hydra.sweeper.scaled.{key}: the dial multiplies numbers, as 16,24,32, and {key}={values} has others."
        ) from None
    # two values may be rounded to one
    return ",".join(dict.fromkeys(str(scale_number(number, scale, power, int(multiple))) for number in numbers))
