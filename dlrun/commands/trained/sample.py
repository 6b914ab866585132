"""`dlrun sample`: text by a language model, points or pictures by a density, from its run's folder alone."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrun.analysis.figures import densities
from dlrun.analysis.figures.style import save
from dlrun.datasets.columns.encode import EncodeColumns
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.engine.evaluation import evaluating
from dlrun.engine.generation import Sampling, as_language_model, decode_stream, default_prompt, generate
from dlrun.errors import UserError
from dlrun.execution import device
from dlrun.randomness import SAMPLING, generator
from dlrun.runs.reload.predictor import Predictor, load_predictor, model_of, spec_of, tokenizer_of
from dlrun.storage import run_config
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.escape import csv_cell, visible
from dlrun.terminal.format import counted
from dlrun.tokenizers.word import UNKNOWN
from dlrun.types import Spec, Tokenizer

OF_TEXT = {"prompt": "", "tokens": 500, "temperature": 0.8, "top_k": 50, "top_p": 1.0, "n": 1}
"""The options of text, and their defaults."""
POINTS, PICTURES = 1000, 64
"""The samples of a density, without `--n`."""


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    folder = find(arguments.run)
    if folder.summary().spec.get("task") == "density":
        _of_density(folder, arguments)
        return 0
    if arguments.output:
        raise UserError("--output is for the samples of a density. Type `> FILE` to keep a text.")
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    arguments = argparse.Namespace(**OF_TEXT | given)
    spec, tokenizer = _of_language(folder)
    prompt = _encode(tokenizer, arguments.prompt) if arguments.prompt else default_prompt(tokenizer)
    model = _place(as_language_model(model_of(folder, spec)[0], spec.input_shape[0]), folder)
    for n in range(arguments.n):
        if arguments.n > 1:  # each under its seed, with a blank line between
            print(f"{'' if n == 0 else chr(10)}── seed {arguments.seed + n} ──")
        how = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed + n)
        drawn = (int(token) for token in generate(model, torch.tensor([prompt]), arguments.tokens, how))
        _stream(arguments.prompt, decode_stream(tokenizer, prompt, drawn))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun sample",
        description="Print text that a run's language model writes, token by token, or draw the points or pictures of "
        "a density. The files of the data set are not needed.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue (default: a new line)")
    parser.add_argument("--tokens", type=int, metavar="N", help="the number of tokens (default: 500)")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="0: always the most probable token; 1: the model's own probabilities (default: 0.8)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K most probable tokens (default: 50)")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw from the most probable tokens that sum to the probability P (default: 1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the same seed gives the same samples (default: 0)"
    )
    parser.add_argument(
        "--n",
        type=int,
        metavar="N",
        help="the number of texts, with seeds S, S+1, … (default: 1), of points (1000) or of pictures (64)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="of a density: a .csv, .npy or .png file (default: points are printed as CSV, pictures go to a .png)",
    )
    return parser


def _check(given: argparse.Namespace) -> None:
    rules: list[tuple[str, Any, Callable[[Any], bool], str]] = [
        ("--tokens", given.tokens, lambda n: n >= 1, "at least 1"),
        ("--temperature", given.temperature, lambda t: 0 <= t < float("inf"), "0 or more"),
        ("--top-k", given.top_k, lambda k: k >= 1, "at least 1"),
        ("--top-p", given.top_p, lambda p: 0 < p <= 1, "a number above 0, at most 1"),
        ("--seed", given.seed, lambda s: s >= 0, "a whole number from 0 on"),
        ("--n", given.n, lambda n: n >= 1, "at least 1"),
    ]
    for name, value, valid, expected in rules:
        if value is not None and not valid(value):
            raise UserError(f"{name} {value}: expected {expected}.")


def _of_density(folder: RunDir, given: argparse.Namespace) -> None:
    """Draw samples in the unit of the data set's files, and print or write them."""
    for name in OF_TEXT:
        if name != "n" and getattr(given, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for text; {folder.path} is a density.")
    predictor = load_predictor(folder)
    shape = predictor.spec.input_shape
    pictures = len(shape) == 3 and shape[0] in (1, 3)
    output_file: Path | None = given.output or (
        Path(f"samples-{folder.id.replace('/', '-')}.png") if pictures else None
    )
    kind = output_file.suffix if output_file else ".csv"
    possible = [".npy", *([".png"] if pictures or shape == (2,) else []), *([".csv"] if len(shape) == 1 else [])]
    if kind not in possible:
        raise UserError(f"--output {output_file}: samples of shape {list(shape)} are written to {', '.join(possible)}.")
    draw: Any = getattr(predictor.model, "sample", None)
    if not callable(draw):
        raise UserError(
            f"The model `{type(predictor.model).__name__}` draws no samples: it has no sample(n, generator)."
        )
    n = given.n or (PICTURES if pictures else POINTS)
    with evaluating(predictor.model):
        x: torch.Tensor = draw(n, generator(given.seed, SAMPLING)).float().cpu()
    if output_file is None:
        _write_csv(sys.stdout, x, predictor)
        return
    try:
        _write(output_file, x, predictor, pictures=pictures)
    except OSError as error:
        raise UserError(f"--output {output_file} cannot be written: {error.strerror}.") from None
    output.say(f"{counted(n, 'picture' if pictures else 'point')}: {output_file}")


def _write(file: Path, x: torch.Tensor, predictor: Predictor, *, pictures: bool) -> None:
    if file.suffix == ".png":
        save(densities.gallery(_shown(x, predictor)) if pictures else densities.scatter(_raw(x, predictor)), file)
    elif file.suffix == ".npy":
        import numpy

        numpy.save(file, _raw(x, predictor).numpy())
    else:
        with file.open("w", newline="") as csv_file:
            _write_csv(csv_file, x, predictor)


def _write_csv(file: Any, x: torch.Tensor, predictor: Predictor) -> None:
    names = [csv_cell(name) for name in predictor.inputs.columns] or [f"x{i}" for i in range(x.shape[1])]
    rows = [[f"{value:.6g}" for value in row] for row in _raw(x, predictor).tolist()]
    csv.writer(file, lineterminator="\n").writerows([names, *rows])


def _shown(x: torch.Tensor, predictor: Predictor) -> torch.Tensor:
    """Pictures [n, H, W] or [n, H, W, 3], the range of the training pictures as 0 to 1."""
    inputs = predictor.inputs
    low, high = (torch.tensor(ends).view(-1, 1, 1) for ends in (inputs.low or (0.0,), inputs.high or (1.0,)))
    shown = ((_raw(x, predictor) - low) / (high - low)).clamp(0, 1)
    return shown[:, 0] if x.shape[1] == 1 else shown.movedim(1, -1)


def _raw(x: torch.Tensor, predictor: Predictor) -> torch.Tensor:
    # a preparation of the user's own has no inverse that is known
    return predictor.prepare.undo(x) if isinstance(predictor.prepare, Standardise | EncodeColumns) else x


def _of_language(folder: RunDir) -> tuple[Spec, Tokenizer]:
    """The sizes of a run's model, and its tokenizer.

    Raises `UserError` for a run that is no language model, or has no tokenizer of text.
    """
    summary = folder.summary()
    said = summary.spec
    if not isinstance(said, dict) or said.get("task") != "language":
        what = f" ({said['task']})" if isinstance(said, dict) and "task" in said else ""
        data = summary.data.get("name", "its data set")
        raise UserError(
            f"{folder.path} is no language model{what}: it was trained on {data}, and writes no text."
            f"\nTo see its answers to a file, type `dlrun predict {folder.id} FILE`."
        )
    spec = spec_of(folder)
    assert spec is not None
    tokenizer = tokenizer_of(folder)
    if tokenizer.size < spec.outputs:
        raise UserError(
            f"{folder.tokenizer} is of another run: it has {tokenizer.size} tokens, the model {spec.outputs}."
        )
    return spec, tokenizer


def _encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """A prompt's tokens, with a warning of unknown words."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        # Python holds a byte that is no UTF-8 as a character of its own
        wrong = ord(prompt[error.start]) & 0xFF
        raise UserError(
            f"--prompt: its byte 0x{wrong:02x} after `{prompt[: error.start]}` is not UTF-8. Type it in a terminal of "
            "UTF-8 (locale), or convert it, for example with iconv -f latin1 -t utf-8."
        ) from None
    tokens = tokenizer.encode(prompt)
    if not tokens:
        raise UserError(f"--prompt `{prompt}` has no tokens. Give some text, or leave it out.")
    seen = tokenizer.decode(tokens)
    if UNKNOWN in seen and UNKNOWN not in prompt:
        output.warn(f"The prompt has words that the tokenizer does not know. The model sees `{seen}`.")
    return tokens


def _place(model: nn.Module, folder: RunDir) -> nn.Module:
    """Move the model to the run's device, if present."""
    wanted = str(run_config.load(folder).trainer.device)
    lacking = wanted.startswith("cuda") and not torch.cuda.is_available()
    place, _ = device.choose("auto" if lacking else wanted, "auto")
    # a token multiplies each weight once: mostly too little for a second thread
    torch.set_num_threads(device.threads_for(2 * sum(p.numel() for p in model.parameters()), place))
    return model.to(place).eval()


def _stream(prompt: str, pieces: Iterator[str]) -> None:
    # a notebook's stream has no encoding to set
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal with few characters
    last = prompt
    print(visible(prompt, keep="\r"), end="", flush=True)
    for piece in pieces:
        print(visible(piece, keep="\r"), end="", flush=True)
        last = piece
    if not last.endswith("\n"):  # the shell's prompt begins a line of its own
        print()
