"""What a run is and where it came from: its identity, and what the machine, git and Python say.

The identity is a hash of what determines a result: two runs of one identity would be equal, so a
sweep need not repeat a job that another has finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dlrun

BOOKKEEPING = ("name", "tracking", "trusted")
"""Groups and keys of the configuration that no result depends on."""
BOOKKEEPING_OF_TRAINER = ("checkpoint_every", "figures", "device", "precision", "threads", "workers")
"""Likewise; the device's type and the precision enter as what they were resolved to."""


def identity(config: Mapping[str, Any], fingerprint: str, *, device: str, precision: str, torch: str) -> str:
    """Return the hash of what determines the result of a run, 64 hexadecimal digits."""
    essential = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    essential["trainer"] = {k: v for k, v in config["trainer"].items() if k not in BOOKKEEPING_OF_TRAINER}
    essential["evaluation"] = {k: v for k, v in config["evaluation"].items() if k != "batch_size"}
    parts = [essential, fingerprint, sources(), user_modules(), device, precision, torch]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def sources() -> str:
    """Return dlrun's version, or in a checkout the hash of its sources."""
    package = Path(dlrun.__file__).parent
    if (package.parent / "pyproject.toml").exists():
        return _hash(sorted(package.rglob("*.py")))
    return dlrun.__version__


def user_modules() -> str:
    """Return the hash of the modules under the current directory that are imported now."""
    here = str(Path.cwd())
    libraries = (sys.prefix, sys.base_prefix, str(Path(dlrun.__file__).parent))
    names = {f for m in list(sys.modules.values()) if (f := getattr(m, "__file__", None))}
    # compared as text: resolving a thousand paths takes longer than a short run
    own = [f for f in names if _within(f, here) and not any(_within(f, library) for library in libraries)]
    return _hash(path for f in sorted(own) if (path := Path(f)).is_file())


def _within(file: str, folder: str) -> bool:
    return file.startswith(folder + os.sep)


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def git() -> dict[str, Any]:
    """Return the commit of the current directory, and whether its files differ from it (empty without git)."""
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
