"""What a run is and where it came from: its identity, and what the machine, git and Python say.

The identity is a hash of what determines a result: two runs of one identity would be equal, so a
sweep need not repeat a job that another has finished.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dlrun
from dlrun.storage.summary import Git

BOOKKEEPING = ("name", "tracking", "trusted", "study", "sweep")
"""Groups and keys of the configuration that no result depends on."""
BOOKKEEPING_OF_TRAINER = ("checkpoint_every", "figures", "profile", "device", "precision", "threads", "workers")
"""Likewise; the device's type and the precision enter as what they were resolved to."""


_remembered: dict[str, Any] = {}


def identity(config: Mapping[str, Any], fingerprint: str, *, device: str, precision: str, torch: str) -> str:
    """Return the hash of what determines the result of a run, 64 hexadecimal digits."""
    return digest([essential(config), fingerprint, sources(), user_modules(config), device, precision, torch])


def essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result depends on of a configuration."""
    kept = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    for group, dropped in (("trainer", BOOKKEEPING_OF_TRAINER), ("evaluation", ("batch_size",))):
        if isinstance(kept.get(group), Mapping):
            kept[group] = {k: v for k, v in kept[group].items() if k not in dropped}
    return kept


def digest(content: Any) -> str:
    """Return the hash of plain values, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache
def sources() -> str:
    """Return dlrun's version, or in a checkout the hash of its sources."""
    if "sources" in _remembered:
        return str(_remembered["sources"])
    package = Path(dlrun.__file__).parent
    if (package.parent / "pyproject.toml").exists():
        return _hash(sorted(package.rglob("*.py")))
    return dlrun.__version__


def user_modules(config: Mapping[str, Any]) -> str:
    """Return the hash of the modules under the current directory that a configuration's targets lie in or import.

    Only what is imported by now is followed, so ask after the targets have been resolved.
    """
    here = str(Path.cwd())
    libraries = (sys.prefix, sys.base_prefix, str(Path(dlrun.__file__).parent))

    def own(name: str) -> str | None:
        file = getattr(sys.modules.get(name), "__file__", None)
        # compared as text: resolving a thousand paths takes longer than a short run
        if not file or not _within(file, here) or any(_within(file, library) for library in libraries):
            return None
        return file if Path(file).is_file() else None

    found: dict[str, str] = {}
    waiting = [name for target in _targets(config) for name in _prefixes(target)]
    while waiting:
        name = waiting.pop()
        if name not in found and (file := own(name)):
            found[name] = file
            waiting += _imports(name, Path(file))
    return _hash(map(Path, sorted(found.values())))


def _targets(value: Any) -> Iterator[str]:
    """Yield every `_target_` of a configuration."""
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        for inner in value.values():
            yield from _targets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _targets(inner)


def _imports(name: str, file: Path) -> Iterator[str]:
    """Yield the full names that a module may import, the packages around them too."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from _prefixes(f"{base}.{alias.name}" if base else alias.name)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _within(file: str, folder: str) -> bool:
    return file.startswith(folder + os.sep)


def _hash(files: Iterable[Path]) -> str:
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return hashed.hexdigest()


def remember(found: Mapping[str, Any]) -> None:
    """Have `git`, `sources` and `versions` return what another process has found with `known`.

    Asking again would cost a short job a third of its time.
    """
    _remembered.update(found)


@contextmanager
def apart() -> Iterator[None]:
    """Forget at the end what was remembered meanwhile."""
    before = dict(_remembered)
    try:
        yield
    finally:
        _remembered.clear()
        _remembered.update(before)


def known() -> dict[str, Any]:
    """Return what the jobs of this program's sweeps need not ask again."""
    return {"git": git(), "sources": sources(), "versions": versions()}


def git() -> Git:
    """Return the commit of the current directory, and whether its files differ from it (empty without git)."""
    if "git" in _remembered:
        found: Git = _remembered["git"]
        return found
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    if "versions" in _remembered:
        return dict(_remembered["versions"])
    found = {"python": platform.python_version(), "dlrun": dlrun.__version__}
    for package in ("torch", "hydra-core", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a machine that carries the package without its metadata
            continue
    return found


def command() -> str:
    """Return the command line, as it would be typed again."""
    import shlex

    arguments = sys.argv[1:]
    return shlex.join(["dlrun", *arguments]) if arguments else Path(sys.argv[0]).name
