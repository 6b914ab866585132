"""Sizes of a transformer: by name, by one number, or by layers, heads and width.

`small` to `xl` are GPT-2's (Radford et al. 2019); `nano`, `micro` and `mini` are minGPT's. `micro` is also nanoGPT's
example for a CPU, and `baby` its example for a GPU. A number n is n layers with n heads of 32 features: 4 is `micro`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from dlrun.errors import ConfigError

Name = Literal["nano", "micro", "mini", "baby", "small", "medium", "large", "xl"]


class Size(NamedTuple):
    """Layers, heads of a layer, and features of a token."""

    layers: int
    heads: int
    width: int


SIZES: dict[str, Size] = {
    "nano": Size(3, 3, 48),
    "micro": Size(4, 4, 128),
    "mini": Size(6, 6, 192),
    "baby": Size(6, 6, 384),
    "small": Size(12, 12, 768),
    "medium": Size(24, 16, 1024),
    "large": Size(36, 20, 1280),
    "xl": Size(48, 25, 1600),
}


def choose_size(
    size: Name | int, *, layers: int | None = None, heads: int | None = None, width: int | None = None
) -> Size:
    """The numbers of `size`, or those given instead.

    Raises `ConfigError` for numbers below 1, and for a width that is no multiple of the heads.

    >>> choose_size("mini", width=384)
    Size(layers=6, heads=6, width=384)
    >>> choose_size(2)
    Size(layers=2, heads=2, width=64)
    """
    named = SIZES[size] if isinstance(size, str) else Size(size, size, 32 * size)
    given = {"layers": layers, "heads": heads, "width": width}
    found = named._replace(**{name: number for name, number in given.items() if number is not None})
    if min(found) < 1:
        wrong = ", ".join(f"{name}={number}" for name, number in found._asdict().items() if number < 1)
        raise ConfigError(
            f"model.size={size} with {wrong}: a transformer has at least 1 layer, 1 head and 1 feature. Type for"
            f" example `model.size=micro`, or `model.layers=4 model.heads=4 model.width=128`."
        )
    if found.width % found.heads:
        raise ConfigError(
            f"model.width={found.width} cannot be shared out evenly among model.heads={found.heads}. Type for example"
            f" `model.width={_nearest(found)}`, or another number of heads."
        )
    return found


def _nearest(size: Size) -> int:
    """The nearest even multiple of the heads."""
    # even, so that rotary positions can turn pairs of features
    pairs = 2 * size.heads
    return max(pairs, round(size.width / pairs) * pairs)
