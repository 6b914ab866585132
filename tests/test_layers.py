"""The rules of the house: who may import whom, how long things are, and what `--help` must not cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlrun

PACKAGE = Path(dlrun.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports only from lines above its own, or from names to its left (ARCHITECTURE.md says why).
LAYERS = """
types errors console
confdir menu trust
randomness tokenizers datasets models losses optimizers schedules metrics
settings state plan objective batches averaging meters stepping tensors captured program
device worth cost layout provenance rundir
sweepdir manifest journal checkpoint results
evaluation generation stacked loop ensemble forecast repeatability evidence
figures
allowed arguments targets configuration weights rehearsal build
interrupt presentation samples saving recorder scoring profile run reload
tracking
studies report sweep search
advice composition hydra_targets multirun compose
commands cli
""".split()  # noqa: SIM905 -- read line by line


def imports(path: Path) -> set[str]:
    """Return the parts of dlrun that a file imports, inside functions too, but not for its types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    typing = {id(inner) for block in blocks for inner in ast.walk(block)}
    names = []
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("dlrun.")} & {*LAYERS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part in ("__init__", "__main__"):
        return
    assert part in LAYERS, f"give «{part}» its place in LAYERS, and in ARCHITECTURE.md"
    allowed = {*LAYERS[: LAYERS.index(part) + 1]}
    assert imports(path) <= allowed, f"{part} may not import {sorted(imports(path) - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1:2] if ast.get_docstring(node) is not None else node.body[:1]
            length = (node.end_lineno or 0) - first[0].lineno + 1 if first else 0
            assert length <= 60 or node.name == "__init__", f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda p: p.stem)
def test_a_yaml_is_at_most_25_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25


def imported(statements: str, watched: tuple[str, ...]) -> set[str]:
    """Return which of the modules `watched` a fresh process has imported after `statements`."""
    program = f"{statements}\nimport sys; print('\\n' + ' '.join(name for name in {watched!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return {*done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["list"]], ids=" ".join)
def test_what_only_shows_text_imports_little(argv: list[str]) -> None:
    heavy = ("torch", "mlflow", "hydra", "omegaconf", "numpy", "sklearn", "matplotlib", "yaml")
    assert not imported(f"from dlrun.cli import main; main({argv})", heavy)


def test_a_composed_configuration_needs_no_torch() -> None:
    assert not imported("from dlrun import compose; compose.config([])", ("torch", "mlflow", "numpy"))


def test_the_loop_and_the_parts_know_neither_hydra_nor_mlflow() -> None:
    parts = "from dlrun import datasets, models, losses, optimizers, schedules, metrics, loop"
    assert not imported(parts, ("hydra", "omegaconf", "mlflow", "sklearn", "matplotlib", "pandas"))
