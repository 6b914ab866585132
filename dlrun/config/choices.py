"""The menu: which groups there are, their choices, and what each says of itself.

It is read from the folders alone: nothing is composed or imported, so that it costs milliseconds.
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
    """One file of a group: `mlp` of `model`, and whether it is the user's own."""

    group: str
    name: str
    path: Path
    own: bool


def groups() -> dict[str, dict[str, ConfigFile]]:
    """Return each group's choices by name, dlrun's own overlaid with the user's; Hydra's groups left out."""
    found: dict[str, dict[str, ConfigFile]] = {}
    mine = paths.user_folder()
    for folder, own in ((paths.package_folder(), False), *([(mine, True)] if mine else [])):
        for path in sorted(folder.glob("*/**/*.yaml")):
            group, *rest = path.relative_to(folder).with_suffix("").parts
            if group != "hydra":
                choice = ConfigFile(group, "/".join(rest), path, own)
                found.setdefault(group, {})[choice.name] = choice
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def describe(choice: ConfigFile) -> str:
    """Return a line about a choice: the first sentence of its head comment, else of its target's docstring."""
    text = choice.path.read_text(encoding="utf-8")
    head = [line.lstrip("# ").rstrip() for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    words = " ".join(line for line in head if line and not line.startswith(("@", "dlrun ")))
    if sentence := re.match(r".+?\.(?=\s|$)|.+", words):
        return sentence[0]
    target = re.search(r"^_target_:\s*['\"]?([\w.]+)", text, re.MULTILINE)
    return (_docstring(target[1]) or target[1]) if target else ""


def _docstring(target: str) -> str:
    """Return the first line of the docstring of `target`, read from its source, without importing it."""
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
