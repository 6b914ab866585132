"""Texts in any encoding, and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

from dlrun.datasets.files.encodings import wide_encoding
from dlrun.datasets.language.lines import read_lines
from dlrun.datasets.language.text_files import collect
from dlrun.tokenizers import by_name, description
from tests.fuzz.reader import Reader, every

TEXT = "To be, or not to be: that is the question.\nNaïve café, 東京 🙂\n"


def _collect(path: Path) -> None:
    found = collect([path], leave_out=True)
    list(found.read(0, len(found)))
    collect([path])


def _tokenizers() -> list[bytes]:
    made = [by_name.fit(name, [TEXT]) for name in ("character", "byte", "word")]
    made.append(by_name.fit("bpe", [TEXT], vocabulary_size=300))
    return [json.dumps(each.content()).encode() for each in made]


def _tokenizer(path: Path) -> None:
    made = by_name.load(description.read(path))
    made.size + 1
    made.bytes_of(TEXT)
    try:
        tokens = made.encode(TEXT)
        made.decode(tokens)
    except Exception:
        # of what is typed, `dlrun sample` says which characters are unknown
        pass


READERS = (
    Reader(
        "text",
        "x.txt",
        lambda: (
            [
                TEXT.encode(code)
                for code in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin1", "cp1252")
                if not _fails(code)
            ]
            or [TEXT.encode()]
        ),
        every(_collect, read_lines, lambda path: wide_encoding(path.read_bytes())),
    ),
    Reader("tokenizer", "tokenizer.json", _tokenizers, _tokenizer, tree=True),
)


def _fails(code: str) -> bool:
    try:
        TEXT.encode(code)
    except UnicodeEncodeError:
        return True
    return False
