"""The user's own modules in a process that outlives their edits, as a notebook's does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.storage.sources import imports
from dlrun.terminal import output

Stamp = tuple[int, int]
"""The seconds at which a file was changed, and its bytes; Python's bytecode has the same."""

NOT_OWN = ("__main__", "dlrun", "hydra_plugins")
"""In a checkout of dlrun these lie in the current directory too."""

_imported: dict[str, Stamp] = {}
"""The modules of the folder that an earlier call has seen, with the stamps of their files."""


@contextmanager
def as_on_disk() -> Iterator[None]:
    """Have modules that were edited since their import imported anew, and those that import them.

    A command does so, and a run's identity is of the files.
    """
    forget_edited()
    try:
        yield
    finally:
        for name, file in _own().items():
            # the bytecode's first: a file may be edited while its code trains
            _imported.setdefault(name, _compiled(file) or _stamp(file))


def forget_edited() -> None:
    """Take modules that were edited since their import out of `sys.modules`."""
    own = _own()
    edited = {name for name, file in own.items() if _is_edited(name, file)}
    # and what has names of theirs
    while more := {n for n, file in own.items() if n not in edited and edited & {*_imports(n, file)}}:
        edited |= more
    for name in sorted(edited):
        output.say(f"{own[name].relative_to(Path.cwd())} has changed: it is imported anew")
        del sys.modules[name]
        _imported.pop(name, None)


def _own() -> dict[str, Path]:
    """The imported modules of the current directory."""
    here = Path.cwd()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        # compared as text first: there are thousands
        if file.startswith(f"{here}/") and file.endswith(".py") and name.partition(".")[0] not in NOT_OWN:
            path = Path(file)
            if "site-packages" not in path.parts and path.is_file():
                found[name] = path
    return found


def _is_edited(name: str, file: Path) -> bool:
    known = _imported.get(name) or _compiled(file)
    return known is not None and known != _stamp(file)


def _stamp(file: Path) -> Stamp:
    stat = file.stat()
    return int(stat.st_mtime), stat.st_size


def _compiled(file: Path) -> Stamp | None:
    """The stamp of the file that Python has compiled at the import; None if it has not said so."""
    with suppress(OSError, NotImplementedError):
        head = Path(importlib.util.cache_from_source(str(file))).read_bytes()[:16]
        if len(head) == 16 and head[4:8] == bytes(4):
            return int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little")
    return None


def _imports(name: str, file: Path) -> Iterator[str]:
    # an edit may be half done
    with suppress(SyntaxError, ValueError):
        yield from imports(name, file)
