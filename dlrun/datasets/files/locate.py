"""Where a data set's files lie, once they are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dlrun.datasets.files import files
from dlrun.datasets.files.sources import File, Source
from dlrun.errors import DataError

_downloads: ContextVar[bool] = ContextVar("downloads", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Have missing files raise `DataError` within the context: nothing is downloaded."""
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


def locate(source: Source, path: str | None = None) -> dict[File, Path]:
    """Find each file of a data set, or download it.

    In a folder named by `path`, and within `without_downloads`, nothing is downloaded.

    Raises `DataError` if files are missing and no mirror gives them.
    """
    folder = files.folder_of(source, path)
    found = {file: files.find(folder, file) for file in source.files}
    if not all(found.values()):
        if path is not None or not source.mirrors or not _downloads.get():
            raise DataError(files.missing_message(source, folder))
        # imported here: http and tarfile take time that a run with its files in place need not spend
        from dlrun.datasets.files.download import download

        download(source, folder)
        found = {file: files.find(folder, file) for file in source.files}
    return {file: where for file, where in found.items() if where is not None}
