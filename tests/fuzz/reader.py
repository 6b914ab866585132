"""A reader of files from strangers, and wrong files for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrun.errors import DlrunError
from tests.fuzz.guard import guarded
from tests.fuzz.mutations import Below, change_bytes, change_tree


@dataclass
class Reader:
    """One reader: `read` is given the path of `file`, whose content is one of `seeds`, changed, then packed.

    Changed are bytes, or with `tree` the values of JSON. `also` are exceptions beside `UserError` that callers of the
    reader expect, as its docstring says.
    """

    name: str
    file: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[Path], object]
    tree: bool = False
    pack: Callable[[bytes], bytes] = bytes
    also: tuple[type[Exception], ...] = ()

    @cached_property
    def contents(self) -> Sequence[bytes]:
        return self.seeds()

    def make(self, below: Below) -> bytes:
        """The content of a wrong file."""
        content = self.contents[below(len(self.contents))]
        if self.tree and below(8):
            lines = content.split(b"\n") if self.file.endswith(".jsonl") else [content]
            place = below(len(lines))
            if lines[place]:
                lines[place] = json.dumps(change_tree(below, json.loads(lines[place]))).encode()
            content = b"\n".join(lines)
        else:
            content = change_bytes(below, content, self.contents)
        return self.pack(content)

    def check(self, content: bytes, folder: Path) -> bool:
        """Read a content; True if it was taken, False if it was refused in a message.

        Raises `Finding`, and any other exception that a person would see as a traceback.
        """
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet), guarded(folder):
                self.read(path)
        except (DlrunError, *self.also):
            return False
        return True


def every(*readers: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Have each of several readers read a file; refused is one that none takes."""

    def read(path: Path) -> None:
        refused: list[DlrunError] = []
        for each in readers:
            try:
                each(path)
            except DlrunError as error:
                refused.append(error)
        if len(refused) == len(readers):
            raise refused[0]

    return read
