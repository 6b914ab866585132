"""The source text of the running Python's standard library: a corpus without a download."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from pathlib import Path

from dlrun.datasets.language import text_files
from dlrun.datasets.language.from_text import from_text
from dlrun.datasets.text import walk
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data, Tokenizer

__all__ = ["stdlib"]

# tests and demonstrations, and packages that were installed beside
_SKIP = ("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages")


def stdlib(
    *,
    size: int | None = 4_000_000,
    tokenizer: str | Tokenizer = "byte",
    vocabulary_size: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    validation_size: int | float = 0.05,
    test_size: int | float = 0.05,
    train_size: int | None = None,
) -> Data:
    """The modules of the standard library, about `size` bytes.

    None means all, 11 MB; its tests are left out. Their order is by a hash of their names, so that the end, cut off
    for the test, is like the rest. The data set's name has the version of Python. The further arguments are those of
    `from_text`. Raises `DataError` if this Python has no sources.
    """
    if size is not None and size < 1:
        raise ConfigError(
            f"dataset.size={size}: expected a number of bytes, or null for all. Type dataset.size=4000000."
        )
    files = text_files.collect(_choose(Path(sysconfig.get_path("stdlib")), size), leave_out=True)
    return from_text(
        f"stdlib-{platform.python_version()}",
        files,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        context=context,
        stride=stride,
        streams=streams,
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        notes={"python": platform.python_version(), "files": len(files.paths)},
    )


def _choose(folder: Path, size: int | None) -> list[Path]:
    """Modules of at least `size` bytes, as far as there are.

    Their order is that of their names' hashes.
    """
    modules = [path for path in walk(folder, skip=_SKIP) if path.suffix == ".py"]
    if not modules:
        raise DataError(
            f"This Python has no sources in {folder}. Take a text of your own: dataset=text dataset.path=…."
        )
    modules.sort(key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest())
    chosen, total = [], 0
    for path in modules:
        if size is None or total < size:
            chosen.append(path)
            total += path.stat().st_size
    return chosen
