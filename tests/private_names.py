"""How a test says that a private name of another package is still what it was."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any


def check_signature(function: Any, given: str, *, known: str) -> None:
    """Assert that a function takes the arguments that dlrun gives it; `known` is the version that it was written for.

    A name with `=` is given by keyword, one without by its place.
    """
    package = known.split()[0]
    told = f"{function} of {package} {version(package)} is another than that of {known}: see who calls it in dlrun"
    words = given.split()
    try:
        inspect.signature(function).bind(*[w for w in words if "=" not in w], **{w[:-1]: w for w in words if "=" in w})
    except TypeError as error:
        raise AssertionError(told) from error
