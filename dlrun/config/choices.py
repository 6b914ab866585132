"""The groups of the configuration and their choices, from the names of files.

Nothing is composed or imported: `dlrun list` takes milliseconds.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from dlrun.config import paths


@dataclass(frozen=True)
class ConfigFile:
    """One choice of a group: `mlp` of `model`."""

    group: str
    name: str
    path: Path
    users: bool
    """It lies in the user's own `conf`."""


def groups() -> dict[str, dict[str, ConfigFile]]:
    """The choices of each group, the user's over dlrun's."""
    found: dict[str, dict[str, ConfigFile]] = {}
    mine = paths.user_folder()
    for folder, users in ((paths.package_folder(), False), *([(mine, True)] if mine else [])):
        for path in sorted(folder.glob("*/**/*.yaml")):
            group, *rest = path.relative_to(folder).with_suffix("").parts
            if group == "hydra":  # of Hydra's own groups, those in which one chooses
                group, *rest = f"hydra/{rest[0]}", *rest[1:]
            if group in ("hydra/sweeper", "hydra/launcher") or not group.startswith("hydra"):
                choice = ConfigFile(group, "/".join(rest), path, users)
                found.setdefault(group, {})[choice.name] = choice
    # launchers have no yaml: they register themselves with Hydra
    plugins = Path(__file__).parents[2] / "hydra_plugins"
    own = [
        *plugins.glob("dlrun_launcher/[a-z]*.py"),
        plugins / "dlrun_cluster/ray.py",
        plugins / "dlrun_cluster/slurm.py",
    ]
    for path in own:
        found.setdefault("hydra/launcher", {}).setdefault(
            path.stem, ConfigFile("hydra/launcher", path.stem, path, False)
        )
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def settings() -> dict[str, ConfigFile]:
    """The files of keys without a choice: cost, finetune, sweep."""
    found = sorted(paths.package_folder().glob("*.yaml"))
    return {path.stem: ConfigFile("", path.stem, path, False) for path in found if path.stem != "dlrun"}


def is_study(choice: ConfigFile) -> bool:
    """True for an experiment whose report checks claims."""
    return re.search(r"^study:", choice.path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def describe(choice: ConfigFile) -> str:
    """The first sentence of its head comment or target's docstring."""
    text = choice.path.read_text(encoding="utf-8")
    if choice.path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition(". ")[0]
    head = [line.lstrip("# ").rstrip() for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    words = " ".join(line for line in head if line and not line.startswith(("@", "dlrun ")))
    # the point of `et al.`, `e.g.` and `i.e.` ends no sentence
    if sentence := re.match(r".+?(?<!\bal)(?<!\be\.g)(?<!\bi\.e)\.(?=\s|$)|.+", words):
        return sentence[0]
    target = re.search(r"^_target_:\s*['\"]?([\w.]+)", text, re.MULTILINE)
    return (_docstring(target[1]) or target[1]) if target else ""


def _docstring(target: str) -> str:
    """The first line of a target's docstring, from its source."""
    *module, name = target.split(".")
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        for source in (root.joinpath(*module).with_suffix(".py"), root.joinpath(*module, "__init__.py")):
            if module and source.is_file():
                return _docstring_in(source, name)
    return ""


def _docstring_in(source: Path, name: str) -> str:
    try:
        body = ast.parse(source.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        return f"(cannot be read: {error})"
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""
