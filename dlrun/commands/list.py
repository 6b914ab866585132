"""`dlrun list`: the groups of the configuration and their choices."""

from __future__ import annotations

from collections.abc import Sequence

from dlrun.config import choices
from dlrun.config.choices import ConfigFile
from dlrun.errors import UserError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="dlrun list", description="Show the groups of the configuration and their choices.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help="describe the choices of this group")
    group = parser.parse_args(argv).group
    groups = choices.groups()
    if group is None:
        _print_all(groups)
    elif group in groups:
        _print_one(groups[group])
    else:
        raise UserError(
            f"There is no group `{group}`.{did_you_mean(group, groups)}\nThe groups are: {', '.join(groups)}."
        )
    return 0


def _print_all(groups: dict[str, dict[str, ConfigFile]]) -> None:
    width = max(map(len, groups))
    for group, files in groups.items():
        output.say(f"{group:{width}}  {', '.join(name + '*' * file.users for name, file in files.items())}")
    output.say("\nType GROUP=CHOICE to choose. Add an experiment or a metric with a plus: +experiment=NAME.")
    if any(file.users for files in groups.values() for file in files.values()):
        output.say("* is from the conf folder here.")
    output.say("`dlrun list GROUP` describes the choices of a group.")


def _print_one(files: dict[str, ConfigFile]) -> None:
    width = max(map(len, files))
    for name, file in files.items():
        note = f" (yours: {file.path})" if file.users else ""
        output.say(f"{name:{width}}  {choices.describe(file)}{note}")
        if file.group == "schedule" and (curve := _curve(file)):
            output.say("\n".join(f"{'':{width}}  {line}" for line in curve.splitlines()) + "\n")


def _curve(file: ConfigFile) -> str:
    """A picture of a schedule with its file's arguments."""
    from functools import partial

    import yaml
    from hydra.utils import get_method

    from dlrun.schedules.picture import picture

    arguments = yaml.safe_load(file.path.read_text(encoding="utf-8")) or {}
    target = arguments.pop("_target_", None)
    # the keys with an underscore are Hydra's
    plain = {key: value for key, value in arguments.items() if not key.startswith("_")}
    return picture(partial(get_method(target), **plain)) if target else ""
