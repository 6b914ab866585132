"""`dlrun list`: the groups, their choices, and what each choice is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dlrun.config import choices as menu
from dlrun.errors import UserError, did_you_mean
from dlrun.terminal import output


def main(argv: Sequence[str]) -> int:
    """Print the groups with their choices, or one group with a line about each choice."""
    parser = argparse.ArgumentParser(prog="dlrun list", description="Show the groups and their choices.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help="describe the choices of this group")
    group = parser.parse_args(argv).group
    groups = menu.groups()
    if group is None:
        _print_all(groups)
    elif group in groups:
        _print_one(groups[group])
    else:
        raise UserError(
            f"There is no group `{group}`.{did_you_mean(group, groups)}\nThe groups are: {', '.join(groups)}."
        )
    return 0


def _print_all(groups: dict[str, dict[str, menu.ConfigFile]]) -> None:
    width = max(map(len, groups))
    for group, choices in groups.items():
        output.say(f"{group:{width}}  {', '.join(name + _mark(choice) for name, choice in choices.items())}")
    output.say("\nGROUP=CHOICE selects one; an experiment or a metric is added: +experiment=NAME.")
    if any(choice.users for choices in groups.values() for choice in choices.values()):
        output.say("* from the conf folder here.")
    output.say("`dlrun list GROUP` describes the choices of a group.")


def _print_one(choices: dict[str, menu.ConfigFile]) -> None:
    width = max(map(len, choices))
    for name, choice in choices.items():
        note = f" (yours: {choice.path})" if choice.users else ""
        output.say(f"{name:{width}}  {menu.describe(choice)}{note}")
        if choice.group == "schedule" and (drawn := _drawn(choice)):
            output.say("\n".join(f"{'':{width}}  {line}" for line in drawn.splitlines()) + "\n")


def _mark(choice: menu.ConfigFile) -> str:
    return "*" if choice.users else ""


def _drawn(choice: menu.ConfigFile) -> str:
    """Return the picture of a schedule's curve, with the arguments that its file gives."""
    from functools import partial

    import yaml
    from hydra.utils import get_method

    from dlrun.schedules.picture import picture

    arguments = yaml.safe_load(choice.path.read_text(encoding="utf-8")) or {}
    target = arguments.pop("_target_", None)
    plain = {key: value for key, value in arguments.items() if not key.startswith("_")}
    return picture(partial(get_method(target), **plain)) if target else ""
