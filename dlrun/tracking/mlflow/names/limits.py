"""Names and values as MLflow takes them. It refuses longer ones, and with them the whole call."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from dlrun.tracking.content.shorten import digest, shorten

NAME, KEY, PARAM, TAG = 250, 250, 6000, 8000
# MLflow takes a hundred params and a hundred tags in one call
PER_CALL = 100


@functools.lru_cache(4096)
def fit(name: str, limit: int = KEY) -> str:
    """Fit a name to MLflow's characters and to `limit`.

    >>> fit("val/top-5 [%]")
    'val/top-5 ___'
    """
    # to MLflow a name is a path too: none of its parts may be empty or lead elsewhere
    parts = [part for part in re.sub(r"[^\w.\- :/]", "_", name).split("/") if part not in ("", ".", "..")]
    fitting = "/".join(parts) or "_"
    return fitting if len(fitting) <= limit else f"{fitting[: limit - 9]}-{digest(name)}"


def stored_as(name: str) -> str:
    """A name that two metrics share if a tracker cannot tell them apart: some databases do not look at case.

    >>> stored_as("Hits<5") == stored_as("hits>5")
    True
    """
    return fit(name).casefold()


def fit_params(params: Mapping[str, str]) -> dict[str, str]:
    """Params that MLflow takes, no two of one name."""
    found: dict[str, str] = {}
    for name, value in params.items():
        fitting = fit(name)
        # two names may differ in characters that MLflow does not take
        fitting = fitting if fitting not in found else fit(f"{fitting[: KEY - 10]}-{digest(name)}")
        found[fitting] = shorten(value, PARAM)
    return found


def fit_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that MLflow takes."""
    return {fit(name): shorten(value, TAG) for name, value in tags.items()}


def tag_filter(name: str, value: str) -> str:
    """MLflow's filter for runs with a tag; of odd values it finds some others too.

    >>> tag_filter("dlrun.id", "ab12"), tag_filter("dlrun.id", "/tmp/it's")
    ("tags.`dlrun.id` = 'ab12'", "tags.`dlrun.id` LIKE '/tmp/it_s'")
    """
    # there is no way to write a quote in its texts: `_` stands for any character
    pattern = re.sub(r"['\"\\`]", "_", value)
    return f"tags.`{name}` {'=' if pattern == value else 'LIKE'} '{pattern}'"
