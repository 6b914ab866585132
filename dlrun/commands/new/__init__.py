"""`dlrun new`: a part of the user's own to begin with, which trains as it stands."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from dlrun.config import choices, paths
from dlrun.errors import UserError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser

KINDS = {
    "dataset": "dataset=NAME",
    "model": "model=NAME",
    "loss": "loss=NAME",
    "optimizer": "optimizer=NAME",
    "schedule": "schedule=NAME",
    "metric": "+metric=NAME",
    "observer": "+observer=NAME",
    "experiment": "+experiment=NAME",
}
"""What can be begun, and the override that chooses it."""

TEMPLATES = Path(__file__).parent / "templates"
FUNCTION, CLASS = "my_part", "MyPart"
"""The names in the templates."""

COMPUTED = ("loss", "perplexity", "bits_per_byte")
"""Metrics without a yaml, whose names are taken too."""

WORDS = ("true", "false", "null", "none", "nan", "inf")
"""Names that are values to Hydra."""


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun new",
        description="Write a part of your own to begin with, in this folder: a module NAME.py and conf/…/NAME.yaml, "
        "which train as they stand.",
    )
    parser.add_argument("kind", metavar="|".join(KINDS), help="what to begin")
    parser.add_argument("name", metavar="NAME", help="its name: letters, digits and _")
    given = parser.parse_args(argv)
    kind, name = given.kind, given.name
    if kind not in KINDS:
        raise UserError(
            f"There is nothing to begin called `{kind}`.{did_you_mean(kind, KINDS)}\nThe kinds are: {', '.join(KINDS)}."
        )
    _check_place()
    _check_name(kind, name)
    files = _files(kind, name)
    # all are looked at before one is written
    if taken := [str(path) for path in files if path.exists() or path.is_symlink()]:
        raise UserError(f"{taken[0]} is there already, and stays. Give another name, or rename that file.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        output.say(f"wrote {path}")
    output.say(f"try   dlrun train {KINDS[kind].replace('NAME', name)}")
    return 0


def _check_place() -> None:
    here = Path.cwd()
    if paths.holds_runs(here):
        raise UserError(f"{here} is the folder of a run or sweep, where no parts are looked for. Go to another folder.")
    conf = here / "conf"
    if conf.is_dir() and conf.samefile(paths.package_folder()):
        raise UserError(f"{conf} is dlrun's own. Parts of yours belong in a folder of yours: go there first.")


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name) or name.lower() in WORDS:
        raise UserError(
            f"`{name}` is no name for a part: expected a letter, then letters, digits and _, and no word of Python's. "
            f"Type for example `dlrun new {kind} {_proposal(kind, name)}`."
        )
    own = choices.groups().get(kind, {}).get(name)
    if (own and not own.users) or (kind == "metric" and name in COMPUTED):
        raise UserError(f"Yours would hide dlrun's {kind} `{name}`. Type for example `dlrun new {kind} my_{name}`.")
    if kind != "experiment" and _is_installed(name):
        raise UserError(
            f"`{name}` is an installed module, which would be imported in place of yours. Type for example "
            f"`dlrun new {kind} my_{name}`."
        )


def _proposal(kind: str, name: str) -> str:
    words = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return words if words.startswith("my_") else f"my_{words or kind}"


def _is_installed(name: str) -> bool:
    """True for a module that lies elsewhere than in this folder."""
    if name in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return found is not None and (found.origin is None or Path(found.origin).parent != Path.cwd())


def _files(kind: str, name: str) -> dict[Path, str]:
    """The text of each file to write."""
    found = {Path("conf") / kind / f"{name}.yaml": _fill(TEMPLATES / f"{kind}.yaml", name)}
    module = TEMPLATES / f"{kind}.py"
    return {Path(f"{name}.py"): _fill(module, name), **found} if module.exists() else found


def _fill(template: Path, name: str) -> str:
    words = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return template.read_text(encoding="utf-8").replace(FUNCTION, name).replace(CLASS, words)
