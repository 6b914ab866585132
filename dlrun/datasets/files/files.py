"""A data set's files on disk: found, unpacked and checked.

They lie in `$DLRUN_DATA/NAME/` (else `~/.cache/dlrun/NAME/`) under the names of their home page, plain, gzip- or
xz-compressed alike. Each is checked by the SHA-256 of its unpacked content, once for a size and a time of
modification; the cache (`DLRUN_CACHE`, else `~/.cache/dlrun`) remembers it. Nothing is ever written beside files that
are already there.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import lzma
import os
import zlib
from contextlib import suppress
from pathlib import Path

from dlrun.datasets.files.sources import OFFLINE, SOURCES, File, Source
from dlrun.datasets.files.unpack import TooLarge, unpack
from dlrun.errors import DataError
from dlrun.storage.files import cache
from dlrun.storage.files.cache import cache_root, default_root


def data_root() -> Path:
    """The folder of all data sets: `DLRUN_DATA`, else `~/.cache/dlrun`."""
    given = os.environ.get("DLRUN_DATA")
    return Path(given).expanduser().absolute() if given else default_root()


def folder_of(source: Source, path: str | None = None) -> Path:
    """The folder of a data set's files, `path` if given.

    Raises `DataError` for a data set in a Python package that is not installed.
    """
    if path is not None:
        return Path(path).expanduser().absolute()
    if not source.package:
        return data_root() / source.name
    package, _, inside = source.package.partition("/")
    # finding a package does not import it: scikit-learn takes 1.4 s
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"The data set `{source.name}` lies in the package `{package}`: pip install scikit-learn.")
    return Path(spec.submodule_search_locations[0]) / inside


def find(folder: Path, file: File) -> Path | None:
    """The path of `file` in `folder`, or None.

    The file may be compressed.
    """
    # without its folder too: `dataset.path` may name the inner folder of an unpacked archive
    for name in (file.name, Path(file.name).name, *file.aliases):
        for packing in ("", ".gz", ".xz"):
            path = folder / (name + packing)
            if path.is_file():
                return path
    return None


def check(path: Path, file: File) -> bytes:
    """Read a file's unpacked content, and check its SHA-256.

    Raises `DataError` if the file is truncated, altered or cannot be read.
    """
    content = _unpack(path, file)
    given = hashlib.sha256(content).hexdigest()
    if given != file.sha256:
        raise DataError(_altered_message(path, file, f"unpacked it has {len(content):,} bytes and SHA-256 {given}"))
    return content


def read(path: Path, file: File) -> bytes:
    """Read and check a file, and remember it for `is_known`."""
    stamp = _stamp(path)  # before reading: a file that changes meanwhile is checked again
    content = check(path, file)
    # without a writable cache the file is checked again each time, no more
    with suppress(OSError):
        cache.save(_mark(path), {"path": str(path), "stamp": stamp, "sha256": file.sha256})
    return content


def is_known(path: Path, file: File) -> bool:
    """True if a file is unchanged since its last check."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = cache.load(_mark(path))
        return bool(known["stamp"] == _stamp(path) and known["sha256"] == file.sha256)
    return False


def missing_message(source: Source, folder: Path, reasons: list[str] | None = None) -> str:
    """The message for missing files: places and alternatives."""
    missing = [file for file in source.files if find(folder, file) is None]
    failed = "".join(f"\n  {reason}" for reason in reasons or [])
    files = "\n".join(f"  {folder / file.name}  {file.size:,} bytes  {file.sha256}" for file in missing)
    where = f"The folder {folder} lacks {len(missing)} of the {len(source.files)} files of the data set `{source.name}`"
    example = next(name for name in OFFLINE if SOURCES[name].text == source.text)
    return (
        where
        + (f", and no mirror gave them:{failed}\n" if failed else ".\n")
        + f"Its home is {source.home}. Put there, plain, .gz or .xz (size and SHA-256 of the unpacked content):\n"
        + f"{files}\n"
        + f"or set DLRUN_DATA to the folder that holds `{source.name}/`, or dataset.path to the one with the files.\n"
        + f"These data sets need no download: {', '.join(OFFLINE)} (dataset={example})."
    )


def _unpack(path: Path, file: File) -> bytes:
    try:
        return unpack(path, file.size)
    except TooLarge as error:
        raise DataError(_altered_message(path, file, f"unpacked {error}")) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(_altered_message(path, file, f"it cannot be unpacked ({error})")) from None
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None


def _altered_message(path: Path, file: File, found: str) -> str:
    return (
        f"The file {path} is truncated or altered: {found};\n"
        f"expected {file.size:,} bytes and SHA-256 {file.sha256}.\n"
        "Delete it and put the original there (`dlrun data` lists the homes), or download it: dlrun data NAME."
    )


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _mark(path: Path) -> Path:
    # a file in the cache for each checked file, named by the hash of its path
    return cache_root() / "verified" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
