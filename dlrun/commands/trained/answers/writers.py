"""Files of answers, written as these come: CSV, JSON lines, arrays."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import IO, Any, Protocol

from torch import Tensor

from dlrun.commands.trained.answers.meaning import Answers, Meaning
from dlrun.errors import UserError, did_you_mean
from dlrun.storage.files.replacing import replacing
from dlrun.terminal.escape import csv_cell

HELD_BACK = 1 << 20
"""Characters for the standard output that wait for the end: an error before it leaves nothing printed."""


class Writer(Protocol):
    """Takes the answers to chunks of samples, in order; `file` is the one that the samples are from."""

    def add(self, answers: Answers, file: str) -> None: ...


class CsvWriter:
    """A line a sample, behind a line of names; of several files the first column is the file."""

    def __init__(self, stream: IO[str], meaning: Meaning, *, with_files: bool) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._meaning, self._with_files = meaning, with_files
        self._begun = False

    def add(self, answers: Answers, file: str) -> None:
        if not self._begun:
            self._begun = True
            self._rows.writerow([*(["file"] if self._with_files else []), *_names(self._meaning)])
        first = [csv_cell(file)] if self._with_files else []
        for prediction, values in _rows(answers, self._meaning):
            chosen = [csv_cell(prediction or "")] if self._meaning.of_classes else []
            self._rows.writerow([*first, *chosen, *map(self._meaning.write, values)])


class JsonWriter:
    """A JSON object a sample, with the names of the CSV; what is no number is null."""

    def __init__(self, stream: IO[str], meaning: Meaning, *, with_files: bool) -> None:
        self._stream, self._meaning, self._with_files = stream, meaning, with_files

    def add(self, answers: Answers, file: str) -> None:
        for prediction, values in _rows(answers, self._meaning):
            row: dict[str, Any] = {"file": file} if self._with_files else {}
            if self._meaning.of_classes:
                row["prediction"] = prediction
            numbers = [self._meaning.exact(value) if isfinite(value) else None for value in values]
            row |= dict(zip(self._meaning.names, numbers, strict=True))
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")


class ArrayWriter:
    """A .npz: `outputs` as the model gives them, of classes also `probabilities`, `prediction` and `class_names`.

    Of a class for each element it has these as `classes`.
    Of several files `file` has the number of each sample's among `files`. The arrays are written to temporary files
    beside it first, for the format wants their lengths at the beginning.
    """

    def __init__(self, place: Path, meaning: Meaning, *, with_files: bool) -> None:
        self._meaning, self._with_files = meaning, with_files
        self._folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        self._place, self._files = place, list[str]()
        self._arrays: dict[str, tuple[IO[bytes], str, tuple[int, ...]]] = {}
        self._count = 0

    def add(self, answers: Answers, file: str) -> None:
        import torch

        if not self._files or self._files[-1] != file:
            self._files.append(file)
        parts: dict[str, Tensor] = {"outputs": answers.outputs}
        if answers.prediction is not None:
            parts |= {"probabilities": answers.values, "prediction": answers.prediction}
        if answers.classes is not None:
            parts["classes"] = answers.classes
        if self._with_files:
            parts["file"] = torch.full((len(answers.outputs),), len(self._files) - 1)
        for name, part in parts.items():
            array = part.numpy()
            if name not in self._arrays:
                self._arrays[name] = ((self._folder / name).open("wb"), array.dtype.str, array.shape[1:])
            self._arrays[name][0].write(array.tobytes())
        self._count += len(answers.outputs)

    def finish(self) -> None:
        """Make one file of the arrays."""
        import numpy

        named = self._meaning.of_classes or "classes" in self._arrays
        texts = {"class_names": self._meaning.class_names} if named else {}
        texts |= {"files": self._files} if self._with_files else {}
        with zipfile.ZipFile(self._place, "w", allowZip64=True) as packed:
            for name, (stream, dtype, shape) in self._arrays.items():
                stream.close()
                head = {"descr": dtype, "fortran_order": False, "shape": (self._count, *shape)}
                with packed.open(f"{name}.npy", "w", force_zip64=True) as target:
                    numpy.lib.format.write_array_header_1_0(target, head)
                    with (self._folder / name).open("rb") as source:
                        shutil.copyfileobj(source, target)
            for name, values in texts.items():
                with packed.open(f"{name}.npy", "w") as target:
                    numpy.lib.format.write_array(target, numpy.array(values), allow_pickle=False)

    def close(self) -> None:
        """Remove the temporary files."""
        for stream, *_ in self._arrays.values():
            stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)


WRITERS = {".csv": CsvWriter, ".txt": CsvWriter, "": CsvWriter, ".jsonl": JsonWriter, ".npz": ArrayWriter}


@contextmanager
def writing(place: Path | None, meaning: Meaning, *, with_files: bool) -> Iterator[Writer]:
    """A writer to a file by its suffix, or as CSV to the standard output.

    The file is there whole, once the block ends, or as it was before. Raises `UserError` for a suffix without a format.
    """
    if place is None:
        with held_back() as stream:
            yield CsvWriter(stream, meaning, with_files=with_files)
        return
    kind = check_kind(place)
    with ExitStack() as stack:
        # a device, such as /dev/null, is written to as it is
        regular = place.is_file() or not place.exists()
        target = stack.enter_context(replacing(place)) if regular else place
        if kind is ArrayWriter:
            arrays = ArrayWriter(target, meaning, with_files=with_files)
            stack.callback(arrays.close)
            yield arrays
            arrays.finish()
            return
        with target.open("w", newline="", encoding="utf-8") as stream:
            yield kind(stream, meaning, with_files=with_files)  # type: ignore[arg-type]  # the others take a stream


def check_kind(place: Path) -> type[CsvWriter | JsonWriter | ArrayWriter]:
    """The writer for a file; raises `UserError`."""
    known: dict[str, type[CsvWriter | JsonWriter | ArrayWriter]] = {**WRITERS}
    if place.suffix.lower() not in known:
        close = did_you_mean(place.suffix, known)
        raise UserError(f"--output {place}: expected a .csv, .jsonl or .npz file.{close}")
    return known[place.suffix.lower()]


@contextmanager
def held_back() -> Iterator[IO[str]]:
    """The standard output: a short text appears whole or, after an error, not at all."""
    stream = _HeldBack()
    yield stream  # type: ignore[misc]  # it is only written to
    stream.let_go()


class _HeldBack:
    def __init__(self) -> None:
        self._parts: list[str] | None = []
        self._size = 0

    def write(self, text: str) -> int:
        if self._parts is None:
            return sys.stdout.write(text)
        self._parts.append(text)
        self._size += len(text)
        if self._size > HELD_BACK:
            self.let_go()
        return len(text)

    def let_go(self) -> None:
        sys.stdout.write("".join(self._parts or ()))
        self._parts = None


def _names(meaning: Meaning) -> list[str]:
    if not meaning.of_classes:
        return meaning.names
    # a cell that begins like a formula is no name of a column
    return ["prediction", *(f"p({csv_cell(name)})" for name in meaning.class_names)]


def _rows(answers: Answers, meaning: Meaning) -> Iterator[tuple[str | None, Sequence[float]]]:
    chosen = answers.prediction.tolist() if answers.prediction is not None else [-1] * len(answers.values)
    for place, values in zip(chosen, answers.values.tolist(), strict=True):
        yield (meaning.class_names[place] if place >= 0 else None), values
