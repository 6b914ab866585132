"""`dlrun list`: the groups of the configuration and their choices."""

from __future__ import annotations

from collections.abc import Sequence

from dlrun.config import choices
from dlrun.config.choices import ConfigFile
from dlrun.errors import UserError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser


def main(argv: Sequence[str]) -> int:
    parser = Parser(
        prog="dlrun list", description="Show the groups of the configuration, their choices, and the keys of a choice."
    )
    parser.add_argument("group", nargs="?", metavar="GROUP", help="describe the choices of this group")
    parser.add_argument("choice", nargs="?", metavar="CHOICE", help="show the keys of this choice, with what they are")
    given = parser.parse_args(argv)
    # as it is typed behind `dlrun train`
    group, _, choice = (given.group or "").removeprefix("+").partition("=")
    choice = given.choice or choice
    groups, settings = choices.groups(), choices.settings()
    if not group:
        _print_all(groups, settings)
    elif group in settings:
        _print_keys(settings[group])
    elif group not in groups:
        raise UserError(_no_group(group, groups, settings))
    elif choice:
        _print_choice(group, choice, groups[group])
    elif [*groups[group]] == ["default"]:
        _print_keys(groups[group]["default"])
    else:
        _print_one(groups[group])
        if group in ELSEWHERE:
            output.say(f"\n{ELSEWHERE[group]}")
    return 0


def _no_group(group: str, groups: dict[str, dict[str, ConfigFile]], settings: dict[str, ConfigFile]) -> str:
    known = [*groups, *settings]
    hint = did_you_mean(group, known)
    if holders := [name for name, files in groups.items() if group in files]:
        hint = f" Did you mean `dlrun list {holders[0]} {group}`?"
    elif group in ("study", "studies"):
        hint = " Studies are experiments: `dlrun list experiment` marks them."
    return f"There is no group `{group}`.{hint}\nThe groups are: {', '.join(known)}."


def _print_all(groups: dict[str, dict[str, ConfigFile]], settings: dict[str, ConfigFile]) -> None:
    width = max(map(len, groups))
    for group, files in groups.items():
        output.say(f"{group:{width}}  {', '.join(name + '*' * file.users for name, file in files.items())}")
    output.say(
        "\nType GROUP=CHOICE to choose. Add an experiment, a metric or an observer with a plus: +experiment=NAME."
    )
    if any(file.users for files in groups.values() for file in files.values()):
        output.say("* is from the conf folder here.")
    output.say("`dlrun list GROUP` describes the choices of a group, `dlrun list GROUP CHOICE` the keys of one.")
    single = [group for group, files in groups.items() if [*files] == ["default"]]
    output.say(f"Further keys: {', '.join(f'`dlrun list {name}`' for name in [*single, *settings])}.")


def _print_one(files: dict[str, ConfigFile]) -> None:
    width = max(map(len, files))
    for name, file in files.items():
        note = f" (yours: {file.path})" if file.users else ""
        study = " A study." if file.group == "experiment" and choices.is_study(file) else ""
        output.say(f"{name:{width}}  {choices.describe(file)}{study}{note}")
        if file.group == "schedule" and (curve := _curve(file)):
            output.say("\n".join(f"{'':{width}}  {line}" for line in curve.splitlines()) + "\n")


ELSEWHERE = {
    "loss": "PyTorch's are typed by their names, such as loss._target_=torch.nn.HuberLoss: docs/losses_and_metrics.md.",
    "metric": "Those of torchmetrics and scikit-learn too, such as +metrics.f1._target_=sklearn.metrics.f1_score "
    "+metrics.f1.of=classes: docs/losses_and_metrics.md.",
}
"""What a group takes beside its choices."""


def _print_choice(group: str, choice: str, files: dict[str, ConfigFile]) -> None:
    if choice not in files:
        raise UserError(
            f"There is no {group} `{choice}`.{did_you_mean(choice, files)}\nThe choices are: {', '.join(files)}."
        )
    _print_keys(files[choice])


def _print_keys(file: ConfigFile) -> None:
    """Print a choice's yaml, whose comments say what the keys are."""
    if file.path.suffix == ".yaml":
        output.say(file.path.read_text(encoding="utf-8").rstrip())
    else:
        output.say(choices.describe(file))


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
