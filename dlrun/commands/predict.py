"""`dlrun predict`: a model's answers to the samples in a file, as CSV."""

from __future__ import annotations

import argparse
import csv
import sys
from math import isfinite
from pathlib import Path
from typing import TextIO

from torch import Tensor

from dlrun.datasets.files import samples
from dlrun.datasets.files.pictures import Reading
from dlrun.errors import DataError, UserError
from dlrun.runs.reload import Predictor, predictor
from dlrun.storage.lookup import find
from dlrun.terminal.arguments import Parser
from dlrun.terminal.escape import csv_cell
from dlrun.types import Spec


def main(argv: list[str]) -> int:
    """Print one line of CSV for each sample."""
    arguments = _parser().parse_args(argv)
    if not arguments.file.is_file():
        raise UserError(f"There is no file {arguments.file}.")
    folder = find(arguments.run)
    if folder.summary().spec.get("task") == "language":
        raise UserError(f"{folder.path} is a language model. To read its text, type `dlrun sample {folder.id}`.")
    asked = predictor(folder)
    reading = Reading(arguments.background, _pixels(arguments.pixels), arguments.raw)
    answers = _answer(asked, samples.read(arguments.file, asked.inputs, reading), arguments.file)
    if arguments.output:
        try:
            with arguments.output.open("w", newline="") as file:
                _write(file, answers, asked.spec)
        except OSError as error:
            raise UserError(f"--output {arguments.output} cannot be written: {error.strerror}.") from None
    else:
        _write(sys.stdout, answers, asked.spec)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun predict",
        description="Print a model's answers to the samples in FILE, as CSV. FILE holds raw inputs, as the data set's "
        "own files do (MNIST's digits are white on black): a .npy array, a .csv table with one sample a line, or a "
        ".png or .jpg picture. The files of the data set are not needed.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument("file", metavar="FILE", type=Path, help="a .npy, .csv, .tsv, .txt, .png or .jpg file")
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
    return parser


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
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        MemoryError,
        DataError,
    ) as error:  # each model has its own words for what it cannot take
        shape = list(asked.inputs.shape)
        raise UserError(
            f"{path} holds samples of shape {list(raw.shape[1:])}; those of this run are {shape}. {error}"
        ) from None


def _write(file: TextIO, answers: Tensor, spec: Spec) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if spec.task == "classification":
        # without names, the classes have numbers
        names = [csv_cell(name) for name in spec.class_names] or [str(c) for c in range(spec.outputs)]
        writer.writerow(["prediction", *(f"p({name})" for name in names)])
        for probabilities in answers.softmax(1):
            row = [f"{p:.6f}" for p in probabilities.tolist()]
            writer.writerow([names[int(probabilities.argmax())], *row])
    else:
        flat = answers.flatten(1)
        writer.writerow([f"y{i}" for i in range(flat.shape[1])] if flat.shape[1] > 1 else ["y"])
        writer.writerows([f"{value:.6g}" for value in row] for row in flat.tolist())
