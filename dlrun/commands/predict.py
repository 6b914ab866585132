"""`dlrun predict`: what a run's model answers to the samples of a file, as CSV."""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from dlrun.engine.evaluation import evaluating
from dlrun.errors import DataError, UserError
from dlrun.execution import device
from dlrun.runs.build import Built
from dlrun.runs.reload import rebuild, select
from dlrun.storage.lookup import find
from dlrun.types import Spec


def main(argv: list[str]) -> int:
    """Print a prediction for each sample of the file that `argv` names."""
    parser = argparse.ArgumentParser(
        prog="dlrun predict",
        description="Print, as CSV, what a run's model answers to each sample of FILE: raw inputs as the data "
        "set's own files hold them (MNIST's digits are white on black), in a .npy array, a .csv table (a sample a "
        "line), or a .png or .jpg image.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or the beginning of its id")
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--output", type=Path, metavar="CSV", help="write there instead of printing")
    arguments = parser.parse_args(argv)
    if not arguments.file.is_file():
        raise UserError(f"There is no file {arguments.file}.")
    folder = find(arguments.run)
    if folder.summary().spec.get("task") == "language":
        raise UserError(f"{folder.path} is a run of language: `dlrun sample {folder.id}` shows what its model writes.")
    built = rebuild(folder)
    raw = read(arguments.file, built.data.spec.input_shape)
    select(built, folder)
    device.apply(built.execution)
    output = _answer(built, raw, arguments.file)
    if arguments.output:
        try:
            with arguments.output.open("w", newline="") as file:
                _write(file, output, built.data.spec)
        except OSError as error:
            raise UserError(f"--output {arguments.output} cannot be written: {error.strerror}.") from None
    else:
        _write(sys.stdout, output, built.data.spec)
    return 0


def read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return the samples of a file, of which each has the `shape`, as a float tensor, [N, …].

    Raises `UserError` for a file that cannot be read, or that holds no samples or no numbers.
    """
    raw = _read(path, shape)
    if tuple(raw.shape) == shape or (1, *raw.shape) == shape:
        raw = raw[None]
    if raw.ndim == 0:
        raise UserError(f"{path} holds a single number; a sample of this run has the shape {list(shape)}.")
    if not len(raw) or not bool(raw.isfinite().all()):
        raise UserError(f"{path} holds {'values that are not finite numbers' if len(raw) else 'no samples'}.")
    return raw


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    try:
        if suffix == ".npy":
            return _array(path)
        if suffix in (".csv", ".tsv", ".txt"):
            return _table(path, "\t" if suffix == ".tsv" else ",")
        if suffix in (".png", ".jpg", ".jpeg"):
            return _image(path, shape)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a {suffix} file: {error}") from None
    raise UserError(f"{path}: `{suffix}` is not a kind of file that is known. Give a .npy, .csv, .png or .jpg file.")


def _array(path: Path) -> Tensor:
    import numpy

    values = numpy.load(path, allow_pickle=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {values.dtype}; expected are real numbers")
    return torch.from_numpy(values).float()


def _table(path: Path, delimiter: str) -> Tensor:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    try:
        [float(cell) for row in rows[:1] for cell in row]
    except ValueError:  # a header
        rows = rows[1:]
    if len({*map(len, rows)}) > 1:
        raise ValueError(f"its lines have {min(map(len, rows))} to {max(map(len, rows))} numbers")
    return torch.tensor([[float(cell) for cell in row] for row in rows])


def _image(path: Path, shape: tuple[int, ...]) -> Tensor:
    import numpy
    from PIL import Image

    # a palette or a bit a pixel would be read as numbers that mean something else
    mode = "RGB" if len(shape) == 3 and shape[0] == 3 else "L"
    pixels = torch.from_numpy(numpy.array(Image.open(path).convert(mode))).float()
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)[None]


def _answer(built: Built, raw: Tensor, path: Path) -> Tensor:
    training, model = built.training, built.training.objective.model
    try:
        inputs = built.data.prepare(raw)
        with evaluating(model), training.objective.precision():
            parts = [model(x.to(training.device)) for x in torch.split(inputs, training.evaluation_batch_size)]
    except (RuntimeError, ValueError, DataError) as error:
        shape = list(built.data.spec.input_shape)
        raise UserError(
            f"{path} holds samples of shape {list(raw.shape[1:])}; those of {built.data.name} are {shape}. {error}"
        ) from None
    return torch.cat(parts).float().cpu()


def _write(file: TextIO, output: Tensor, spec: Spec) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if spec.task == "classification":
        names = spec.class_names or tuple(str(c) for c in range(spec.outputs))
        writer.writerow(["prediction", *(f"p({name})" for name in names)])
        for probabilities in output.softmax(1):
            row = [f"{p:.6f}" for p in probabilities.tolist()]
            writer.writerow([names[int(probabilities.argmax())], *row])
    else:
        flat = output.flatten(1)
        writer.writerow([f"y{i}" for i in range(flat.shape[1])] if flat.shape[1] > 1 else ["y"])
        writer.writerows([f"{value:.6g}" for value in row] for row in flat.tolist())
