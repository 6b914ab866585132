"""The target texts that a model of pairs writes for source texts, and the files of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch.nn.utils.rnn import pad_sequence

from dlrun.commands.trained.answers.writers import held_back
from dlrun.datasets.language.pairs.read import read_sources
from dlrun.errors import UserError
from dlrun.runs.reload.predictor import Predictor, tokenizer_of
from dlrun.storage.files.replacing import replacing
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.escape import csv_cell
from dlrun.terminal.format import counted
from dlrun.tokenizers.pair import END, PADDING, PairTokenizer

KINDS = (".csv", ".jsonl", ".txt")

Write = Callable[[Sequence[str], str], None]
"""Takes the answers to some texts, and their file."""


def check_text_kind(place: Path) -> None:
    """Raise `UserError` for a file that takes no texts."""
    if place.suffix.lower() not in KINDS:
        raise UserError(f"--output {place}: the answers are texts; expected a {', '.join(KINDS[:-1])} or .txt file.")


class Writer:
    """Target texts by a run's model, the likeliest token at each place."""

    def __init__(self, folder: RunDir, predictor: Predictor, size: int) -> None:
        if not hasattr(predictor.model, "generate"):
            raise UserError(
                f"The model `{type(predictor.model).__name__}` of {folder.path} has no method `generate(source)` that "
                f'returns the tokens of its answers. Ask in Python: `run = dlrun.load("{folder.id}")`.'
            )
        tokenizer = tokenizer_of(folder)
        if not isinstance(tokenizer, PairTokenizer):
            raise UserError(f"{folder.tokenizer} is of another run: it is none of pairs of texts.")
        self._tokenizer, self._predictor, self._size, self._open = tokenizer, predictor, size, 0

    def answers(self, path: Path) -> Iterator[list[str]]:
        """Yield the answers to a file's texts, some at a time; to an empty text the empty one."""
        texts = read_sources(path, self._predictor.config["dataset"].get("columns") or {})
        if not texts:
            raise UserError(f"{path} holds no texts.")
        for start in range(0, len(texts), self._size):
            yield self._answer(texts[start : start + self._size])

    def report(self) -> None:
        """Say how many answers had no end."""
        if self._open:
            output.warn(f"{counted(self._open, 'answer', ',')} did not come to an end, and are cut.")

    def _answer(self, texts: Sequence[str]) -> list[str]:
        written = [place for place, text in enumerate(texts) if text]
        found = [""] * len(texts)
        if not written:
            return found
        rows = [torch.tensor(self._tokenizer.encode(texts[place])) for place in written]
        tokens = self._predictor.generate(pad_sequence(rows, batch_first=True, padding_value=PADDING))
        self._open += int((tokens != END).all(1).sum())
        for place, row in zip(written, tokens.tolist(), strict=True):
            found[place] = self._tokenizer.decode(row)
        return found


@contextmanager
def writing_texts(place: Path | None, *, with_files: bool) -> Iterator[Write]:
    """A function that writes texts to a file by its suffix, or as CSV to the standard output."""
    if place is None:
        with held_back() as stream:
            yield _csv(stream, with_files)
        return
    makers = {".csv": _csv, ".jsonl": _json}
    with replacing(place) as target, target.open("w", newline="", encoding="utf-8") as stream:
        yield makers.get(place.suffix.lower(), _lines)(stream, with_files)


def _csv(stream: IO[str], with_files: bool) -> Write:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([*(["file"] if with_files else []), "prediction"])
    return lambda texts, file: rows.writerows(
        [*([csv_cell(file)] if with_files else []), csv_cell(text)] for text in texts
    )


def _json(stream: IO[str], with_files: bool) -> Write:
    def write(texts: Sequence[str], file: str) -> None:
        for text in texts:
            row = {"file": file} if with_files else {}
            stream.write(json.dumps(row | {"prediction": text}, ensure_ascii=False) + "\n")

    return write


def _lines(stream: IO[str], with_files: bool) -> Write:
    # a line each, as the sources have
    return lambda texts, file: stream.writelines(" ".join(text.split("\n")) + "\n" for text in texts)
