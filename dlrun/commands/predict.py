"""`dlrun predict`: a model's answers to the samples in a file, as CSV."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from dlrun.datasets.files import samples
from dlrun.engine.evaluation import evaluating
from dlrun.errors import DataError, UserError
from dlrun.execution import device
from dlrun.runs.build import Built
from dlrun.runs.reload import rebuild, select
from dlrun.storage.lookup import find
from dlrun.terminal.arguments import Parser
from dlrun.terminal.escape import csv_cell
from dlrun.types import Spec


def main(argv: list[str]) -> int:
    """Print one line of CSV for each sample."""
    parser = Parser(
        prog="dlrun predict",
        description="Print a model's answers to the samples in FILE, as CSV. FILE holds raw inputs, as the data set's "
        "own files do (MNIST's digits are white on black): a .npy array, a .csv table with one sample a line, or a "
        ".png or .jpg image.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument("file", metavar="FILE", type=Path, help="a .npy, .csv, .tsv, .txt, .png or .jpg file")
    parser.add_argument("--output", type=Path, metavar="CSV", help="write to this file instead of printing")
    arguments = parser.parse_args(argv)
    if not arguments.file.is_file():
        raise UserError(f"There is no file {arguments.file}.")
    folder = find(arguments.run)
    if folder.summary().spec.get("task") == "language":
        raise UserError(f"{folder.path} is a language model. To read its text, type `dlrun sample {folder.id}`.")
    built = rebuild(folder)
    # read before the weights: a wrong file is the likelier mistake
    raw = samples.read(arguments.file, built.data.spec.input_shape)
    select(built, folder)
    device.apply(built.execution)
    answers = _answer(built, raw, arguments.file)
    if arguments.output:
        try:
            with arguments.output.open("w", newline="") as file:
                _write(file, answers, built.data.spec)
        except OSError as error:
            raise UserError(f"--output {arguments.output} cannot be written: {error.strerror}.") from None
    else:
        _write(sys.stdout, answers, built.data.spec)
    return 0


def _answer(built: Built, raw: Tensor, path: Path) -> Tensor:
    training, model = built.training, built.training.objective.model
    try:
        inputs = built.data.prepare(raw)
        with evaluating(model), training.objective.precision():
            parts = [model(x.to(training.device)) for x in torch.split(inputs, training.evaluation_batch_size)]
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        MemoryError,
        DataError,
    ) as error:  # each model has its own words for a wrong shape
        shape = list(built.data.spec.input_shape)
        raise UserError(
            f"{path} holds samples of shape {list(raw.shape[1:])}; those of {built.data.name} are {shape}. {error}"
        ) from None
    return torch.cat(parts).float().cpu()


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
