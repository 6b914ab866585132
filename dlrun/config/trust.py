"""The user's trust in modules and names.

A run's folder keeps the `trusted:` of its configuration, but it may come from somebody else, so it is not believed.
Wherever a run is rebuilt, only names count that this user grants now: by `trusted=[…]` on the command line, by a
`trusted:` in `./conf`, or by the environment variable `DLRUN_TRUSTED` (names with commas between). Beside modules, a
name is `oc.env.NAME` (that variable may be read), a path (its data may be written down, see `check_files`),
`state.loss.phase` (a checkpoint may set it, see `engine.own.admission`), or `command.DIGEST` (a command may be run).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config import paths
from dlrun.errors import ConfigError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

VARIABLE = "DLRUN_TRUSTED"
"""The processes of a sweep's jobs inherit it."""

ENVIRONMENT = "oc.env."
"""Before a name in `trusted`: the variable of that name may be read."""


def trusted_names() -> list[str]:
    return [*dict.fromkeys([*_from_environment(), *_from_user_conf()])]


def check(names: Iterable[str], *, of: str) -> None:
    """Raise `ConfigError` for names that this user does not trust.

    `of` says who does.
    """
    known = _from_environment()
    left = [name for name in names if name not in known]
    if left and (left := [name for name in left if name not in trusted_names()]):
        raise ConfigError(
            f"{of} trusts `{left[0]}`, and only you can grant that. If you trust it too, type "
            f"`'trusted=[{','.join(left)}]'`, or write it in your own conf/."
        )


def check_environment(config: DictConfig, *, of: str) -> None:
    """Raise `ConfigError` if a kept configuration reads environment variables that this user does not grant.

    `of` says whose it is. It may come from somebody else, who would find a password in what the run writes.
    """
    if "${" not in str(config):
        return
    from dlrun.storage.run_config import variables

    granted = {name.removeprefix(ENVIRONMENT) for name in trusted_names() if name.startswith(ENVIRONMENT)}
    if left := sorted({*variables(config)} - granted):
        names = ",".join(f"{ENVIRONMENT}{name}" for name in left)
        raise ConfigError(
            f"{of} reads the environment variable {left[0]}, which this command would use. If it is yours, or "
            f"you trust it, type `'trusted=[{names}]'`."
        )


def check_files(values: Any, *, of: str, home: Path) -> None:
    """Raise `ConfigError` if values name a file or folder that this user does not trust by its path.

    `of` says whose they are; what lies in its folder `home` needs no trust.
    """
    known = [home.resolve(), *(Path(name).resolve() for name in trusted_names() if os.sep in name)]
    for path in _existing(values):
        if not any(path.is_relative_to(place) for place in known):
            raise ConfigError(
                f"{of} names {path} and has no fingerprint of its data, so it may be another file than it was trained "
                f"on, and the run would write down what is in it. If it is the right one, type `'trusted=[{path}]'`."
            )


def check_command(target: Any, arguments: Mapping[str, Any], *, where: str) -> None:
    """Raise `ConfigError` if a part would run a command that this user has not given.

    Such a part names the argument in its attribute `runs_command`.
    """
    argument = getattr(target, "runs_command", None)
    command = arguments.get(argument) if argument else None
    if not isinstance(command, str):
        return
    name = _name_of(command)
    if name not in _from_environment() and name not in trusted_names() and command not in _commands_of_user_conf():
        raise ConfigError(
            f"{where}.{argument} would run `{command}` on this machine, and nothing that you typed, nor your own "
            f"conf/, says so: it comes with a folder that may be somebody else's. If you trust it, type "
            f"`'trusted=[{name}]'`."
        )


def grant_commands(observers: Any) -> None:
    """Trust the commands in a configuration of this user, as `grant` does."""
    grant(map(_name_of, _commands(observers)))


def _name_of(command: str) -> str:
    # by its text: another command is another name
    return f"command.{hashlib.sha256(command.encode(errors='surrogatepass')).hexdigest()[:16]}"


def _commands(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key == "command" and isinstance(value, str):
                yield value
            yield from _commands(value)


def _commands_of_user_conf() -> list[str]:
    return [command for content in _user_files("command:") for command in _commands(content)]


def grant_environment(config: DictConfig) -> None:
    """Trust the environment variables that a configuration of this user reads, as `grant` does."""
    from dlrun.storage.files.config_values import raw_values  # the command line's start imports no OmegaConf

    if "oc.env" not in str(raw_values(config)):
        return
    from dlrun.storage.run_config import variables

    grant(f"{ENVIRONMENT}{name}" for name in variables(config))


def grant(names: Iterable[str]) -> None:
    """Trust `names` in this process and its children."""
    if more := [name for name in names if name not in _from_environment()]:
        os.environ[VARIABLE] = ",".join([*_from_environment(), *more])


def grant_from(arguments: Sequence[str]) -> list[str]:
    """Grant each `trusted=[NAME,…]` among the arguments; returns the others.

    Raises `UserError` for a value that is no list.

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
            raise UserError(f"`{argument}`: expected a list of names. Type `'trusted=[{value or 'mylab'}]'`.")
        grant(name.strip(" '\"") for name in value[1:-1].split(",") if name.strip(" '\""))
    return rest


def _from_environment() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def _existing(values: Any) -> Iterable[Path]:
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list):
        for each in values:
            yield from _existing(each)
    elif isinstance(values, str):
        with suppress(OSError, ValueError, RuntimeError):  # too long, a NUL, no home: no path
            if (path := Path(values).expanduser()).exists():
                yield path.resolve()


def _from_user_conf() -> Iterable[str]:
    for content in _user_files("trusted:"):
        names = content.get("trusted")
        if isinstance(names, list):
            yield from (name for name in names if isinstance(name, str))


def _user_files(word: str) -> Iterator[dict[str, Any]]:
    """The content of the files in the user's `conf` that have a word in them."""
    folder = paths.user_folder()
    if folder is None:
        return
    import yaml

    # read, not composed: which of the files a run used is in its record, and that is not believed
    for file in folder.rglob("*.yaml"):
        try:
            text = file.read_text(encoding="utf-8")
            content = yaml.safe_load(text) if word in text else None  # parsing is slow
        except (OSError, ValueError, yaml.YAMLError):
            continue  # composing says so, if the file is used
        if isinstance(content, dict):
            yield content
