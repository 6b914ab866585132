"""Trust belongs to the user, never to a record.

A run's folder keeps the `trusted:` of its configuration, but a folder may come from somebody else. So what it says is
not believed: wherever a run is rebuilt, only names count that this user grants now, by `trusted=[…]` on the command
line, by a `trusted:` in a file of their own `./conf`, or by the environment variable `DLRUN_TRUSTED` (names with
commas between).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from dlrun.config import paths
from dlrun.errors import UserError

VARIABLE = "DLRUN_TRUSTED"
"""Job processes inherit it, so whatever their launcher was granted holds for them too."""


def trusted_names() -> list[str]:
    """The modules and names that this user trusts, beside those of the current folder."""
    return [*dict.fromkeys([*_from_environment(), *_from_user_conf()])]


def grant(names: Iterable[str]) -> None:
    """Trust `names` for the rest of this process, and in the processes that it starts."""
    if more := [name for name in names if name not in _from_environment()]:
        os.environ[VARIABLE] = ",".join([*_from_environment(), *more])


def grant_from(arguments: Sequence[str]) -> list[str]:
    """Grant each `trusted=[NAME,…]` among the arguments; return the other arguments.

    Raises `UserError` if the value is no list.

    >>> grant_from(["k3x9", "--split", "test"])
    ['k3x9', '--split', 'test']
    """
    rest = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key != "trusted" or not equals:
            rest.append(argument)
            continue
        if not (value.startswith("[") and value.endswith("]")):
            raise UserError(f"`{argument}`: expected a list of names. Type trusted=[{value or 'mylab'}].")
        grant(name.strip(" '\"") for name in value[1:-1].split(",") if name.strip(" '\""))
    return rest


def _from_environment() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def _from_user_conf() -> Iterable[str]:
    """The entries of every `trusted:` in the user's own `./conf`."""
    folder = paths.user_folder()
    if folder is None:
        return
    import yaml

    for file in folder.rglob("*.yaml"):
        try:
            text = file.read_text(encoding="utf-8")
            content = yaml.safe_load(text) if "trusted:" in text else None  # parsing is slow, and most say nothing
        except (OSError, ValueError, yaml.YAMLError):
            continue  # if it matters, composing says so
        names = content.get("trusted") if isinstance(content, dict) else None
        yield from (name for name in names or [] if isinstance(name, str))
