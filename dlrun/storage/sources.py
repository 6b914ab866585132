"""Hashes of the code that a result depends on: dlrun's own, and the user's."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dlrun.storage.files.replacing import write_atomically

PACKAGE = Path(__file__).parents[1]

COUNTED = (
    *("types.py", "randomness.py", "metrics.py", "datasets", "tokenizers", "models", "losses", "optimizers"),
    *("schedules", "engine", "execution", "stacked", "config/instantiate.py", "config/signatures.py"),
    *(
        "runs/build.py",
        "runs/parts.py",
        "runs/dry_run/batches.py",
        "runs/dry_run/memory.py",
        "runs/dry_run/streams.py",
        "runs/measures",
        "runs/open_run.py",
        "runs/run.py",
        "runs/scoring.py",
    ),
    *("runs/weights", "runs/recording/observers.py", "runs/recording/observer_checks.py", "runs/recording/restore.py"),
    *("runs/recording/spikes.py", "runs/recording/replaying.py"),
    *("nests", "observers/__init__.py", "observers/view.py", "observers/lr_range.py"),
)
"""The rooms and files that a result depends on: an edit of a report, a message or a page ends no reuse."""


NO_MODULES = hashlib.sha256().hexdigest()
"""The hash of `user_modules` where all parts are dlrun's and torch's."""


@functools.cache
def sources() -> str:
    """dlrun's version, or a checkout's hash of its counted sources."""
    checkout = (PACKAGE.parent / "pyproject.toml").exists()
    with suppress(PackageNotFoundError):  # a machine that carries the package without its metadata
        if not checkout:
            return version("dlrun")
    found = (sorted(path.rglob("*.py")) if path.is_dir() else [path] for path in (PACKAGE / name for name in COUNTED))
    return code_hash([file for files in found for file in files], cache=PACKAGE / "__pycache__" / "sources.json")


def code_hash(files: Iterable[Path], *, cache: Path) -> str:
    """The hash of Python files, without docstrings and comments.

    To parse dlrun takes half a second, and a job of a sweep a tenth of one: `cache` keeps the hash while no file has
    another size or time of change, as Python keeps bytecode.
    """
    stats = {str(file): file.stat() for file in files}
    seen = {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}
    with suppress(OSError, ValueError, KeyError):
        kept = json.loads(cache.read_text())
        if kept["files"] == seen:
            return str(kept["hash"])
    hashed = _hash((Path(file).name, _code(Path(file).read_bytes()).encode()) for file in seen)
    with suppress(OSError):  # a folder that is read-only
        write_atomically(cache, json.dumps({"hash": hashed, "files": seen}).encode())
    return hashed


def _code(text: bytes) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        # a lambda and a conditional expression have a single node as their body
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def user_modules(config: Mapping[str, Any]) -> str:
    """The hash of the user's modules behind a configuration, and of the versions of packages that they come from.

    These are the modules with a `_target_`, wherever they lie, and those that they import; of an installed package
    the version. Only modules that are imported by now count: call it after the targets have been resolved.
    """
    libraries = _libraries()

    def own(name: str) -> str | None:
        file = getattr(sys.modules.get(name), "__file__", None)
        # compared as text: resolving a thousand paths takes longer than a short run
        if (
            not file
            or any(f"{os.sep}{folder}{os.sep}" in file for folder in INSTALLED)
            or any(_within(file, library) for library in libraries)
        ):
            return None
        return file if Path(file).is_file() else None

    found: dict[str, str] = {}
    packages: dict[str, str] = {}
    waiting = [name for target in targets(without_watching(config)) for name in _prefixes(target)]
    # the modules that the targets import, and what these import
    while waiting:
        name = waiting.pop()
        if name not in found and (file := own(name)):
            found[name] = file
            # an extension module names none
            waiting += imports(name, Path(file)) if file.endswith(".py") else ()
        elif name not in found and (given := _version(name)):
            packages[name] = given
    files = [(Path(file).name, Path(file).read_bytes()) for file in sorted(found.values())]
    return _hash([*files, *((name, given.encode()) for name, given in sorted(packages.items()))])


LOOKING = ("dlrun.observers.alert.Alert", "dlrun.observers.predictions.Predictions")
"""dlrun's own observers that change nothing, known without an import."""


def without_watching(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration without observers that look and change nothing: no result depends on them.

    A class that has not been imported yet is taken to change something.
    """
    observers = config.get("observers")
    if not isinstance(observers, Mapping):
        return config
    kept = {name: part for name, part in observers.items() if isinstance(part, Mapping) and _may_change(part)}
    return {**config, "observers": kept}


def is_known_to_look(part: Any) -> bool:
    """Whether an observer is one of dlrun's own that change nothing."""
    return isinstance(part, Mapping) and part.get("_target_") in LOOKING


def _may_change(part: Mapping[str, Any]) -> bool:
    module, _, name = str(part.get("_target_")).rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return not is_known_to_look(part) and (kind is None or changes_result(kind))


def changes_result(kind: type) -> bool:
    """Whether the observers of a class change the training, or may end it."""
    return bool(getattr(kind, "changes_training", False)) or hasattr(kind, "stop_reason")


INSTALLED = ("site-packages", "dist-packages")


@functools.cache
def _libraries() -> tuple[str, ...]:
    """The folders of installed code."""
    known = sysconfig.get_paths()
    standard = (sysconfig.get_paths(vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})["stdlib"],)
    found = (known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return (*dict.fromkeys((*found, *standard, *site.getsitepackages(), site.getusersitepackages())), str(PACKAGE))


def _version(name: str) -> str:
    """The version of an installed package; empty for dlrun, torch, a module in a package, and the standard library."""
    # torch is a part of the identity itself
    if "." in name or name in ("dlrun", "torch") or name in sys.stdlib_module_names or name not in sys.modules:
        return ""
    with suppress(PackageNotFoundError, ValueError):
        return version(name)
    return str(getattr(sys.modules[name], "__version__", ""))


def targets(value: Any) -> Iterator[str]:
    """Every `_target_` of a configuration."""
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        for inner in value.values():
            yield from targets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from targets(inner)


def imports(name: str, file: Path) -> Iterator[str]:
    """All full names in a module's imports."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from a import b`: b may be a module or a value; a name that is no module is not found later
                yield from _prefixes(f"{base}.{alias.name}" if base else alias.name)


def _prefixes(name: str) -> Iterator[str]:
    """A dotted name and its packages: a, a.b, a.b.c."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _within(file: str, folder: str) -> bool:
    return file.startswith(folder + os.sep)


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    hashed = hashlib.sha256()
    for name, content in files:
        hashed.update(name.encode(errors="surrogateescape") + b"\0" + content + b"\0")
    return hashed.hexdigest()
