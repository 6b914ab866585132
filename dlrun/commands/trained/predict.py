"""`dlrun predict`: a model's answers to the samples in files, as CSV, JSON lines or arrays."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from dlrun.commands.trained.answers.masks import MaskWriter
from dlrun.commands.trained.answers.meaning import Meaning
from dlrun.commands.trained.answers.texts import Writer, check_text_kind, writing_texts
from dlrun.commands.trained.answers.writers import check_kind, writing
from dlrun.config.settings import Evaluation
from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.given import samples
from dlrun.datasets.files.pictures import Reading
from dlrun.datasets.files.tabular.read import is_table
from dlrun.datasets.files.tabular.rows import read_rows
from dlrun.datasets.images.catalogue import pictures_in
from dlrun.datasets.language.labelled import encode_texts, read_texts, simplify
from dlrun.engine.evaluation import batch_size_for
from dlrun.errors import UserError, place
from dlrun.nests.shapes import describe_shapes, is_shape
from dlrun.runs.reload.predictor import Predictor, learned_pairs, load_predictor, tokenizer_of
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import counted

EVERY = 0.2
"""Seconds between two texts of the live line."""


def main(argv: list[str]) -> int:
    """Write one line for each sample, in order, as the answers come."""
    arguments = _parser().parse_args(argv)
    files = [file for given in arguments.file for file in _files(given)]
    target: Path | None = arguments.output
    folder = find(arguments.run)
    of_pairs = learned_pairs(folder)
    if target is not None:
        (check_text_kind if of_pairs else check_kind)(target)
    if arguments.masks and of_pairs:
        raise UserError("--masks is for pictures; the run's targets are texts.")
    if folder.summary().spec.get("task") == "language":
        raise UserError(f"{folder.path} is a language model. To read its text, type `dlrun sample {folder.id}`.")
    predictor = load_predictor(folder)
    if of_pairs:
        return _write_texts(folder, predictor, files, target)
    if not is_shape(predictor.spec.input_shape):
        raise UserError(
            f"The inputs of {folder.path} are {describe_shapes(predictor.spec.input_shape)}, and a file holds one "
            f'tensor. Ask in Python: `run = dlrun.load("{folder.id}")`, then `run.model(inputs)`.'
        )
    reading = Reading(arguments.background, _pixels(arguments.pixels), arguments.raw, arguments.invert)
    target = target or arguments.masks
    meaning, progress = Meaning(folder, predictor), _Progress(len(files), shown=target is not None)
    with_files = len(files) > 1 or arguments.file != files
    masks = nullcontext(MaskWriter(arguments.masks)) if arguments.masks else None
    try:
        with masks or writing(target, meaning, with_files=with_files) as writer:
            # each file by itself: its answers are the same with others beside it
            for file in files:
                for raw in _read(file, folder, predictor, reading, _chunk(predictor)):
                    writer.add(meaning(_answer(predictor, raw, file)), str(file))
                    progress.add(len(raw))
                progress.end_file()
    except OSError as error:
        if target is None:
            raise
        raise UserError(f"--output {target} cannot be written: {error.strerror}.") from None
    meaning.report()
    if target is not None:
        output.say(f"{counted(progress.samples, 'sample', ',')}: {target}")
    return 0


def _write_texts(folder: RunDir, predictor: Predictor, files: list[Path], target: Path | None) -> int:
    """Write the target texts to the source texts of files."""
    writer, progress = Writer(folder, predictor, _chunk(predictor)), _Progress(len(files), shown=target is not None)
    with writing_texts(target, with_files=len(files) > 1) as write:
        for file in files:
            for texts in writer.answers(file):
                write(texts, str(file))
                progress.add(len(texts))
            progress.end_file()
    writer.report()
    if target is not None:
        output.say(f"{counted(progress.samples, 'text', ',')}: {target}")
    return 0


class _Progress:
    """A live line on a terminal, or now and then one in a log."""

    def __init__(self, files: int, *, shown: bool) -> None:
        self._files, self._shown = files, shown
        self.samples = self._done = 0
        self._told = self._logged = monotonic()

    def add(self, samples: int) -> None:
        self.samples += samples
        now = monotonic()
        if not self._shown or now - self._told < EVERY:
            return
        self._told = now
        text = f"{self.samples:,} samples" + (f", {self._done:,} of {self._files:,} files" if self._files > 1 else "")
        output.live(text)
        if not sys.stdout.isatty() and now - self._logged >= output.HEARTBEAT:
            self._logged = now
            output.say(text)

    def end_file(self) -> None:
        self._done += 1


def _chunk(predictor: Predictor) -> int:
    """Samples at once, so many as the model is asked with in a batch."""
    return batch_size_for(Evaluation(**predictor.config["evaluation"]).batch_size, predictor.spec)


def _files(given: Path) -> list[Path]:
    """A file, or the pictures in a folder, sorted by path."""
    if not given.is_dir():
        if not given.is_file():
            raise UserError(f"There is no file {given}.")
        return [given]
    found = pictures_in(given)
    if not found:
        raise UserError(f"The folder {given} has no pictures ({', '.join(ENDINGS)}).")
    return found


def _read(path: Path, folder: RunDir, predictor: Predictor, reading: Reading, size: int) -> Iterator[Tensor]:
    """The raw samples of a file, `size` at a time."""
    inputs = predictor.inputs
    if folder.tokenizer.is_file() and path.suffix != ".npy":
        return _tokens(path, folder, predictor, size)
    if inputs.kinds and is_table(path):
        return iter(torch.split(read_rows(path, inputs), size))
    if "category" in inputs.kinds:
        raise UserError(f"{path}: the run's inputs have categories, which only a table has. Give a .csv with a header.")
    return samples.chunks(path, inputs, reading, size=size)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun predict",
        description="Print a model's answers to the samples in FILE, as CSV. FILE holds raw inputs, as the data set's "
        "own files do (MNIST's digits are white on black): a .npy array, a .csv table with one sample a line, a "
        "picture (.png, .jpg, …), or a folder of pictures; of texts, a .txt with one a line, a .csv or .jsonl; "
        "of pairs of texts the sources. "
        "The files of the data set are not needed.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="a .npy, .csv, .tsv or .txt file, a picture, or a folder of pictures; any table if the run learned from "
        "one; of several, the first column is the file",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="of a model of pixels: write a .png for each sample, whose pixels are the numbers of their classes",
    )
    kind.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to a .csv, a .jsonl or a .npz (arrays; of texts .txt), whole or not at all, instead of printing",
    )
    parser.add_argument(
        "--background",
        choices=["black", "white"],
        help="what lies behind a transparent picture (default: refuse it)",
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--pixels",
        metavar="LOW,HIGH",
        help="the data set's values of a picture's black and white (default: the range of the run's own inputs)",
    )
    scale.add_argument("--raw", action="store_true", help="a picture's numbers are the data set's own, as 0 to 16")
    parser.add_argument(
        "--invert", action="store_true", help="exchange a picture's black and white, as for ink on paper and MNIST"
    )
    return parser


def _tokens(path: Path, folder: RunDir, predictor: Predictor, size: int) -> Iterator[Tensor]:
    """Yield the texts of a file as tokens, for a run on texts, `size` at a time."""
    given = predictor.config["dataset"]
    texts = read_texts(path, given.get("columns") or {})
    if not texts:
        raise UserError(f"{path} holds no texts.")
    tokenizer = tokenizer_of(folder)
    for start in range(0, len(texts), size):
        some = texts[start : start + size]
        some = [simplify(text) for text in some] if given.get("simplify") else some
        yield encode_texts(some, tokenizer, predictor.spec.input_shape[0])[0]


def _pixels(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        low, high = map(float, given.split(","))
    except ValueError:
        low = high = 0.0
    if not (isfinite(low) and isfinite(high)) or low == high:
        raise UserError(f"--pixels {given}: expected the values of black and white, as --pixels 0,1.")
    return low, high


def _answer(predictor: Predictor, raw: Tensor, path: Path) -> Tensor:
    try:
        return predictor(raw)
    except UserError:
        raise
    except Exception as error:  # each model has its own words for what it cannot take
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UserError(
            f"{path}: the model `{type(predictor.model).__name__}` cannot be asked with samples of shape "
            f"{list(raw.shape[1:])}. {type(error).__name__}: {reason}{place(error)}"
        ) from None
