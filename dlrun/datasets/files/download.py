"""Downloading a data set from the first mirror with the right files."""

from __future__ import annotations

import os
import tarfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from dlrun.datasets.files import files
from dlrun.datasets.files.sources import File, Source
from dlrun.errors import DataError
from dlrun.storage.files.cache import replacing
from dlrun.storage.files.locks import locked
from dlrun.terminal import output

_TIMEOUT = 15.0  # seconds without an answer
_CHUNK = 1 << 18  # bytes between two updates of the progress


def download(source: Source, folder: Path) -> None:
    """Download the missing files of `source` to `folder`.

    One process downloads, others wait for it. Raises `DataError` with every mirror's answer if none gives the right
    files.
    """
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".download.lock"):
            for mirror in source.mirrors:
                # looked for again behind the lock: another process may have downloaded them
                missing = [file for file in source.files if files.find(folder, file) is None]
                if not missing:
                    return
                output.say(f"Downloading {source.name} from {mirror} to {folder}")
                try:
                    (_from_archive if source.archive else _from_folder)(source, mirror, folder, missing)
                    return
                # whatever a mirror does wrong, the next one may do right
                except (OSError, HTTPException, DataError, EOFError, tarfile.TarError, ValueError) as error:
                    reasons.append(f"{mirror}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    except OSError as error:
        reasons.append(f"{folder} cannot be written: {error.strerror or error}")
    raise DataError(files.missing_message(source, folder, reasons))


def _from_folder(source: Source, mirror: str, folder: Path, missing: list[File]) -> None:
    for file in missing:
        target = folder / (file.name + source.packed)
        with _download(mirror + file.name + source.packed, target, most=_largest([file])) as temporary:
            files.check(temporary, file)
            temporary.replace(target)


def _from_archive(source: Source, mirror: str, folder: Path, missing: list[File]) -> None:
    target = folder / f"{source.name}.tar"
    with _download(mirror, target, most=_largest(source.files)) as packed, tarfile.open(packed) as archive:
        for file in missing:
            # read by name: no path in the archive can lead elsewhere
            member = archive.extractfile(_member(archive, file))
            if member is None:
                raise DataError(f"`{file.name}` is not a file in the archive")
            with replacing(folder / file.name) as temporary:
                temporary.write_bytes(member.read(file.size + 1))
                files.check(temporary, file)


def _member(archive: tarfile.TarFile, file: File) -> tarfile.TarInfo:
    try:
        return archive.getmember(file.name)
    except KeyError:
        raise DataError(f"the archive has no `{file.name}`") from None


def _largest(expected: Iterable[File]) -> int:
    """The most bytes that a mirror may send for these files."""
    # compressed they are smaller; an archive may have a few others
    return sum(file.size for file in expected) + (1 << 24)


@contextmanager
def _download(url: str, target: Path, *, most: int) -> Iterator[Path]:
    """Yield a temporary file with the content of `url`.

    It is deleted unless moved. Raises `DataError` for more than `most` bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    request = urllib.request.Request(url, headers={"User-Agent": "dlrun"})  # some hosts refuse Python's own
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, temporary.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                if file.tell() > most:
                    raise DataError(f"it sends more than {most / 1e6:.0f} MB")
                output.live(f"  {target.name}  {file.tell() / 1e6:.1f} of {total / 1e6:.1f} MB")
        output.live("")  # takes the line of progress away
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
