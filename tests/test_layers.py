"""The rules of the house: who may import whom, how long things are, and what `--help` must not cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

import dlrun

PACKAGE = Path(dlrun.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Lowest first. A room imports only rooms of lines above its own, and its own files.
ORDER = """
nests
types errors randomness terminal
storage tokenizers losses models schedules
datasets metrics config tracking
engine
optimizers analysis
execution stacked observers
runs
studies
report
sweeps
commands
cli
""".strip().splitlines()
LEVEL = {room: level for level, line in enumerate(ORDER) for room in line.split()}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of dlrun that a file imports: at its top, in functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & {*MODULES}) or {node.module}
    return frozenset(found & {*MODULES}) - {name}


def graph() -> dict[str, frozenset[str]]:
    return {name: imports(name) for name in MODULES}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def parent(name: str) -> str:
    """The folder of a module."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def on_a_circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """The nodes on a circle, and those that lead to one."""
    left = {name: {*others} for name, others in graph.items()}
    while free := [name for name, others in left.items() if not others & {*left}]:
        for name in free:
            del left[name]
    return sorted(left)


def test_every_file_has_its_room() -> None:
    assert not {room(name) for name in MODULES} - {*LEVEL, "", "__main__"}, "give it a line in ORDER"
    entries = {folder: {p.name for p in folder.iterdir()} - {"__pycache__"} for folder in {p.parent for p in FILES}}
    crowded = {f.name: len(names) for f, names in entries.items() if len(names) > (28 if f == PACKAGE else 18)}
    # a room of parts may hold more: one file a part
    assert not {*crowded} - {"models", "studies", "datasets"}, "split the room"


def test_rooms_import_downwards() -> None:
    def allowed(name: str, other: str) -> bool:
        if room(name) in ("", "__main__", "cli") or room(name) == room(other):
            return True
        return bool(room(other)) and LEVEL[room(other)] < LEVEL[room(name)]

    upward = {f"{name} -> {other}" for name, others in graph().items() for other in others if not allowed(name, other)}
    assert not upward


def test_files_import_in_no_circle() -> None:
    assert not on_a_circle(graph())


def test_folders_import_in_no_circle() -> None:
    folders: dict[str, set[str]] = {}
    for name, others in graph().items():
        if room(name) and (folder := parent(name)) != "dlrun":
            folders[folder] = folders.get(folder, set()) | {parent(other) for other in others} - {folder}
    assert not on_a_circle(folders)


def lengths(path: Path) -> Iterator[str]:
    """What is too long in a file."""
    text = path.read_text(encoding="utf-8")
    if (lines := len(text.splitlines())) > 300:
        yield f"{path.relative_to(PACKAGE)} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            first = node.body[1:2] if ast.get_docstring(node) is not None else node.body[:1]
            length = (node.end_lineno or 0) - first[0].lineno + 1 if first else 0
            if length > 60:
                yield f"{path.relative_to(PACKAGE)}: {node.name} has {length} lines"


def test_files_and_functions_are_short() -> None:
    assert not [each for path in FILES for each in lengths(path)]


def test_a_yaml_is_at_most_40_lines() -> None:
    files = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "conf").rglob("*.yaml")}
    assert files
    assert not {str(path): lines for path, lines in files.items() if lines > 40}


def imported(statements: str, watched: tuple[str, ...]) -> set[str]:
    """Return which of the modules `watched` a fresh process has imported after `statements`."""
    program = f"{statements}\nimport sys; print('\\n' + ' '.join(name for name in {watched!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return {*done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["list"]], ids=" ".join)
def test_what_only_shows_text_imports_little(argv: list[str]) -> None:
    heavy = ("torch", "mlflow", "hydra", "omegaconf", "numpy", "sklearn", "matplotlib", "yaml")
    assert not imported(f"from dlrun.cli import main; main({argv})", heavy)


def test_the_package_itself_imports_little() -> None:
    assert not imported("import dlrun", ("torch", "mlflow", "hydra", "omegaconf", "numpy", "pandas", "yaml"))


def test_a_composed_configuration_needs_no_torch() -> None:
    assert not imported("from dlrun.config import compose; compose.config([])", ("torch", "mlflow", "numpy"))


def test_the_loop_and_the_parts_know_neither_hydra_nor_mlflow() -> None:
    parts = "from dlrun import datasets, models, losses, optimizers, schedules, metrics; from dlrun.engine import loop"
    assert not imported(parts, ("hydra", "omegaconf", "mlflow", "sklearn", "matplotlib", "pandas"))
