"""ARFF, Weka's and OpenML's form of a table: declared attributes, then rows of cells.

Source: https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from dlrun.datasets.files.tabular import separated
from dlrun.errors import DataError

_ATTRIBUTE = re.compile(r"@attribute\s+('(?:[^'\\]|\\.)*'|\"[^\"]*\"|\S+)\s+(.+)$", re.IGNORECASE)
_VALUE = re.compile(r"\s*('(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^,]*)\s*(?:,|$)")


def read(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The columns of a file, texts as they are in it, and the values of its nominal attributes."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names: list[str] = []
    declared: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines):
        text = line.strip()
        if text.lower().startswith("@data"):
            return _data(path, lines[number + 1 :], names), declared
        if found := _ATTRIBUTE.match(text):
            names.append(_unquoted(found[1]))
            if found[2].startswith("{"):
                declared[names[-1]] = _values(found[2])
    raise DataError(f"{path} has no line @data.")


def _data(path: Path, lines: list[str], names: list[str]) -> dict[str, Any]:
    rows = [line for line in lines if line.strip() and not line.lstrip().startswith("%")]
    if rows and rows[0].lstrip().startswith("{"):
        raise DataError(f"{path} is a sparse ARFF file, which is not read. Save it as CSV.")
    text = "\n".join(rows)
    quote = "'" if "'" in text else '"'
    # a blank before a quote would make it a part of the cell
    text = re.sub(r"(^|,)[ \t]+(?=['\"])", r"\1", text, flags=re.MULTILINE) + "\n"
    return separated.parse(path, io.BytesIO(text.encode()), names, delimiter=",", skip=False, quote=quote)


def _values(declaration: str) -> tuple[str, ...]:
    inner = declaration[1 : declaration.rindex("}")]
    return tuple(dict.fromkeys(_unquoted(found[1].strip()) for found in _VALUE.finditer(inner) if found[0]))


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if quoted else text
