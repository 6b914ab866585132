"""The lines of a text file."""

from __future__ import annotations

from pathlib import Path

from dlrun.datasets.files.encodings import refuse_packed, wide_encoding
from dlrun.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8, cut at line breaks alone.

    A form feed or one of Unicode's separators is part of a line, as for `wc` and pandas. Raises `DataError` for
    another encoding.
    """
    try:
        raw = path.read_bytes()
        refuse_packed(path, raw[:256])
        if encoding := wide_encoding(raw[:256]):
            raise DataError(
                f"{path} is {encoding}; expected UTF-8. Type iconv -f {encoding.lower()} -t utf-8 {path} > new.txt"
            )
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line} is not text in UTF-8 ({error.reason}). Type for example "
            f"iconv -f latin1 -t utf-8 {path} > new.txt."
        ) from None
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None
    lines = text.replace("\r\n", "\n").split("\n")
    # a file ends with a line break, behind which there is no line
    return lines if lines[-1] else lines[:-1]
