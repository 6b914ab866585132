"""Text files as one long text, checked, counted and read from any place on.

A file is text if it is UTF-8 without a zero byte. The cache remembers the result for the files' sizes and times of
modification, so that a large corpus is scanned once.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlrun.datasets.files.encodings import unpacking, wide_encoding
from dlrun.datasets.language.json_lines import is_json_lines, texts
from dlrun.errors import DataError
from dlrun.storage.files import cache
from dlrun.storage.files.cache import cache_root
from dlrun.terminal import output

_CHUNK = 1 << 20
_LONG = 1 << 26  # bytes from which on progress is shown


class NotText(Exception):
    """A file is no text in UTF-8.

    The message names the first wrong byte, or the encoding that it is in; `command` makes text of it.
    """

    def __init__(self, message: str, command: str = "iconv -f latin1 -t utf-8 {} > new.txt") -> None:
        super().__init__(message)
        self.command = command


@dataclass(frozen=True)
class TextFiles:
    """Text files, one after another.

    `characters` are the numbers of each file's, `content` is the SHA-256 of the whole in UTF-8. If `ended`, as with
    several files, each file ends with a line break, added where it is missing. `left_out` are other files, each with
    the reason. Of files with JSON lines, the text is that in `field`, a line break after each record.
    """

    paths: tuple[str, ...]
    characters: tuple[int, ...]
    content: str
    ended: bool
    left_out: tuple[tuple[str, str], ...] = ()
    field: str | None = None

    def __len__(self) -> int:
        """The number of characters."""
        return sum(self.characters)

    def read(self, start: int, stop: int) -> Iterator[str]:
        """Yield the characters from `start` to `stop` in pieces.

        Raises `DataError` if a file has become unreadable.
        """
        begin = 0
        for path, length in zip(self.paths, self.characters, strict=True):
            place = begin
            begin += length
            if begin <= start or place >= stop:  # no character of this file is asked for
                continue
            for piece in _read_or_refuse(Path(path), ended=self.ended, field=self.field):
                if (kept := piece[max(0, start - place) : max(0, stop - place)]) != "":
                    yield kept
                place += len(piece)


def collect(paths: Sequence[Path], *, leave_out: bool = False, field: str | None = None) -> TextFiles:
    """Join text files to one text.

    Raises `DataError` for the first file that is no text, or with `leave_out` lists such files in `left_out`.
    """
    # the key of the cache: paths, sizes and times, so that a changed file is scanned again
    stamps = [[str(path), *_stamp(path)] for path in paths]
    digest = hashlib.sha256(json.dumps([stamps, leave_out, *([] if field is None else [field])]).encode()).hexdigest()[
        :32
    ]
    cached = cache_root() / "texts" / f"{digest}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known: dict[str, Any] = cache.load(cached)
        return TextFiles(**{name: _tuples(value) for name, value in known.items()})
    files = _scan(paths, leave_out=leave_out, field=field)
    if len(files) >= _CHUNK:  # a smaller text is scanned faster than its cache is read
        with suppress(OSError):
            cache.save(cached, asdict(files))
    return files


def pieces(path: Path, *, ended: bool = False, field: str | None = None) -> Iterator[str]:
    """Yield the text of a file.

    The byte order mark is left out. If `ended`, a line break is added where the last one is missing. Raises `NotText`
    for the first wrong byte, and `OSError`. Of a file of JSON lines, the text is that in `field`.
    """
    if field is not None and is_json_lines(path):
        yield from (f"{text}\n" for text in texts(path, field))
        return
    # incremental: a character may lie across two chunks
    decoder = codecs.getincrementaldecoder("utf-8")()
    last, offset, begun, more = "", 0, False, True
    with path.open("rb") as file:
        while more:
            more = bool(chunk := file.read(_CHUNK))
            if offset == 0 and (unpack := unpacking(chunk[:256])):
                raise NotText("it is compressed", command=f"{unpack} {{}}")
            if offset == 0 and (wide := wide_encoding(chunk[:256])):
                raise NotText(f"it is {wide}", command=f"iconv -f {wide.lower()} -t utf-8 {{}} > new.txt")
            # zero is valid UTF-8, but no text has it
            if (zero := chunk.find(0)) >= 0:
                raise NotText(f"byte {offset + zero:,} is zero, as in binary files")
            pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
            try:
                text = decoder.decode(chunk, final=not more)
            except UnicodeDecodeError as error:
                wrong = error.object[error.start]
                raise NotText(f"byte {offset - pending + error.start:,} (0x{wrong:02x}) is not UTF-8") from None
            offset += len(chunk)
            # only at the beginning: elsewhere U+FEFF is a character
            text, begun = text if begun else text.removeprefix("\ufeff"), begun or text != ""
            last = text[-1:] or last
            yield text
    if ended and last not in ("", "\n"):
        yield "\n"


def _read_or_refuse(path: Path, *, ended: bool, field: str | None = None) -> Iterator[str]:
    try:
        yield from pieces(path, ended=ended, field=field)
    except NotText as error:
        raise DataError(
            f"The file {path} is not text in UTF-8: {error}. Convert it, for example with "
            f"`{error.command.format(path)}`, or leave it out."
        ) from None
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None


def _scan(paths: Sequence[Path], *, leave_out: bool, field: str | None) -> TextFiles:
    digest, kept, left_out = hashlib.sha256(), {}, []
    total, done = sum(_stamp(path)[0] for path in paths), 0
    for path in paths:
        so_far, count = digest.copy(), 0
        try:
            for piece in (pieces if leave_out else _read_or_refuse)(path, ended=len(paths) > 1, field=field):
                digest.update(piece.encode())
                count += len(piece)
            if count:
                kept[str(path)] = count
        except NotText as error:
            digest = so_far  # without the pieces before the wrong byte
            left_out.append((str(path), str(error)))
        except OSError as error:
            raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None
        done += _stamp(path)[0]
        if total > _LONG:
            output.live(f"  {done / total:.0%} of {total / 1e6:.0f} MB scanned")
    if total > _LONG:
        output.live("")
    return TextFiles(tuple(kept), tuple(kept.values()), digest.hexdigest(), len(paths) > 1, tuple(left_out), field)


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None
    return [stat.st_size, stat.st_mtime_ns]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
