"""`dlrun predict`: a model's answers to the samples in a file, as CSV."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from dlrun.analysis.figures.classes import are_probabilities
from dlrun.datasets.files import samples
from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.pictures import Reading
from dlrun.datasets.files.tabular.read import is_table
from dlrun.datasets.files.tabular.rows import read_rows
from dlrun.datasets.images.catalogue import pictures_in
from dlrun.datasets.language.labelled import encode_texts, read_texts, simplify
from dlrun.errors import UserError, place
from dlrun.metrics import for_task
from dlrun.runs.reload import Predictor, predictor, tokenizer_of
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.escape import csv_cell
from dlrun.terminal.format import counted
from dlrun.types import Spec


def main(argv: list[str]) -> int:
    """Print one line of CSV for each sample."""
    arguments = _parser().parse_args(argv)
    files = [file for given in arguments.file for file in _files(given)]
    folder = find(arguments.run)
    if folder.summary().spec.get("task") == "language":
        raise UserError(f"{folder.path} is a language model. To read its text, type `dlrun sample {folder.id}`.")
    asked = predictor(folder)
    reading = Reading(arguments.background, _pixels(arguments.pixels), arguments.raw, arguments.invert)
    # each file by itself: its answers are the same with others beside it
    each = [_answer(asked, _read(file, folder, asked, reading), file) for file in files]
    if len({answers.shape[1:] for answers in each}) > 1:
        raise UserError("The model's outputs have another shape for each file. Type `dlrun predict` once for each.")
    table = _table(torch.cat(each), asked, refused=_refused(folder, asked))
    if len(files) > 1 or arguments.file != files:
        table = _with_files(table, [str(file) for file, some in zip(files, each, strict=True) for _ in some])
    if arguments.output:
        try:
            with arguments.output.open("w", newline="") as csv_file:
                csv.writer(csv_file, lineterminator="\n").writerows(table)
        except OSError as error:
            raise UserError(f"--output {arguments.output} cannot be written: {error.strerror}.") from None
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table)
    return 0


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


def _read(path: Path, folder: RunDir, asked: Predictor, reading: Reading) -> Tensor:
    """The raw samples of a file."""
    inputs = asked.inputs
    if folder.tokenizer.is_file() and path.suffix != ".npy":
        return _tokens(path, folder, asked)
    if inputs.kinds and is_table(path):
        return read_rows(path, inputs)
    if "category" in inputs.kinds:
        raise UserError(f"{path}: the run's inputs have categories, which only a table has. Give a .csv with a header.")
    return samples.read(path, inputs, reading)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun predict",
        description="Print a model's answers to the samples in FILE, as CSV. FILE holds raw inputs, as the data set's "
        "own files do (MNIST's digits are white on black): a .npy array, a .csv table with one sample a line, a "
        "picture (.png, .jpg, …), or a folder of pictures; of texts, a .txt with one a line, a .csv or .jsonl. "
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
    parser.add_argument("--output", type=Path, metavar="CSV", help="write to this file instead of printing")
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


def _tokens(path: Path, folder: RunDir, asked: Predictor) -> Tensor:
    """The texts of a file as tokens, for a run on texts."""
    given = asked.config["dataset"]
    texts = read_texts(path, given.get("columns") or {})
    if not texts:
        raise UserError(f"{path} holds no texts.")
    texts = [simplify(text) for text in texts] if given.get("simplify") else texts
    return encode_texts(texts, tokenizer_of(folder), asked.spec.input_shape[0])[0]


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


def _answer(asked: Predictor, raw: Tensor, path: Path) -> Tensor:
    try:
        return asked(raw)
    except UserError:
        raise
    except Exception as error:  # each model has its own words for what it cannot take
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UserError(
            f"{path}: the model `{type(asked.model).__name__}` cannot be asked with samples of shape "
            f"{list(raw.shape[1:])}. {type(error).__name__}: {reason}{place(error)}"
        ) from None


def _refused(folder: RunDir, asked: Predictor) -> bool:
    """Did the run find that its outputs do not bear the metrics of the task?"""
    own = asked.config["metrics"]
    wanted = {name for name in for_task(asked.spec.task) if own.get(name, name) is not None}
    splits = [key.split("/", 1) for key in folder.summary().metrics if key.startswith(("val/", "test/"))]
    return bool(wanted and splits) and not wanted & {name for _, name in splits}


def _table(answers: Tensor, asked: Predictor, *, refused: bool) -> Iterator[list[str]]:
    """The lines of the CSV: of classes, of a target's components, or of outputs that are neither."""
    spec, shape = asked.spec, list(answers.shape[1:])
    if spec.task == "classification" and shape == [spec.outputs] and not refused:
        probabilities = _probabilities(answers, asked)
        _report_non_finite(probabilities)
        return _classes(probabilities, spec)
    flat = answers.reshape(len(answers), -1)
    width = flat.shape[1]
    if spec.task != "classification" and width == spec.outputs and not refused:
        word = {"embedding": "embedding_", "density": "log_prob"}.get(spec.task, "y")
        names = [f"{word}{i}" for i in range(width)] if width > 1 else [word.rstrip("_")]
    else:
        names = [f"output_{i}" for i in range(width)]
        kind = "logits of the classes" if spec.task == "classification" else "the target"
        expected = f"; expected {[spec.outputs]}" if shape != [spec.outputs] else ", and its metrics do not fit them"
        output.warn(
            f"The model's outputs are not {kind}: they have the shape {shape} a sample{expected}. They are printed as "
            "they are, as output_0 and so on, the last axis running fastest."
        )
    _report_non_finite(flat)
    return _numbers(names, flat)


def _report_non_finite(values: Tensor) -> None:
    found = int((~values.isfinite().all(1)).sum())
    if found:
        output.warn(
            f"The model's outputs for {found:,} of {counted(len(values), 'sample', ',')} are not finite numbers."
        )


OF_LOGITS = (
    *("torch.nn.CrossEntropyLoss", "torch.nn.NLLLoss"),
    *("torch.nn.functional.cross_entropy", "torch.nn.functional.nll_loss"),
)


def _probabilities(outputs: Tensor, asked: Predictor) -> Tensor:
    """Softmax of logits, unless a loss of the user's own is given probabilities."""
    loss = str(asked.config["loss"]["_target_"])
    # PyTorch's losses of classes take logits, or log-probabilities, whose softmax are the probabilities
    if (loss.startswith("dlrun.") and loss.rpartition(".")[2] != "OfOutputs") or loss in OF_LOGITS:
        return outputs.softmax(1)
    if are_probabilities(outputs):
        output.warn("The model's outputs are probabilities: none is negative, and each sample's sum is 1.")
        return outputs
    output.warn(
        f"p(…) is the softmax of the model's outputs. If {loss} does not take them as logits, it means nothing."
    )
    return outputs.softmax(1)


def _classes(probabilities: Tensor, spec: Spec) -> Iterator[list[str]]:
    # without names, the classes have numbers
    names = [csv_cell(name) for name in spec.class_names] or [str(c) for c in range(spec.outputs)]
    yield ["prediction", *(f"p({name})" for name in names)]
    for row in probabilities:
        prediction = names[int(row.argmax())] if bool(row.isfinite().all()) else ""
        yield [prediction, *(f"{p:.6f}" for p in row.tolist())]


def _numbers(names: list[str], values: Tensor) -> Iterator[list[str]]:
    yield names
    for row in values.tolist():
        yield [f"{value:.6g}" for value in row]


def _with_files(table: Iterator[list[str]], files: list[str]) -> Iterator[list[str]]:
    for file, row in zip(["file", *map(csv_cell, files)], table, strict=True):
        yield [file, *row]
