"""Records in JSON, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlrun.errors import DataError, did_you_mean

ENDINGS = (".jsonl", ".ndjson")


def is_json_lines(path: Path) -> bool:
    """Whether a file's name says that it holds JSON lines."""
    return path.suffix.lower() in ENDINGS


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, record); empty lines are passed over.

    Raises `DataError` for a line that is no JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _record(path, number, line)
    except UnicodeDecodeError as error:
        raise DataError(f"The file {path} is not text in UTF-8: {error}.") from None
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror or error}.") from None


def texts(path: Path, field: str) -> Iterator[str]:
    """Yield the text in a field of each record.

    Raises `DataError` for a record without it.
    """
    for number, record in records(path):
        yield text_of(path, number, record, field)


def text_of(path: Path, number: int, record: dict[str, Any], field: str) -> str:
    """The text in a field of one record."""
    if field not in record:
        raise DataError(
            f"{path}, line {number} has no field `{field}`.{did_you_mean(field, record)} It has {', '.join(record)}."
        )
    value = record[field]
    if not isinstance(value, str):
        raise DataError(f"{path}, line {number}: the field `{field}` is a {type(value).__name__}; expected a text.")
    return value


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise DataError(f'{path}, line {number} is a {type(found).__name__}; expected an object, as {{"text": …}}.')
    return found
