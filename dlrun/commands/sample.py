"""`dlrun sample`: text by a language model, from its run's folder alone."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator

import torch
from torch import nn

from dlrun.engine.generation import Sampling, as_language_model, decode_stream, default_prompt, generate
from dlrun.errors import UserError
from dlrun.execution import device
from dlrun.runs.reload import model_of, spec_of, tokenizer_of
from dlrun.storage import run_config
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.escape import visible
from dlrun.tokenizers.word import UNKNOWN
from dlrun.types import Spec, Tokenizer


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    folder = find(arguments.run)
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
        description="Print text that a run's language model writes, token by token. The files of the data set are not "
        "needed.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="the text to continue (default: a new line)")
    parser.add_argument("--tokens", type=int, default=500, metavar="N", help="the number of tokens (default: 500)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0: always the most probable token; 1: the model's own probabilities (default: 0.8)",
    )
    parser.add_argument(
        "--top-k", type=int, default=50, metavar="K", help="draw from the K most probable tokens (default: 50)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the most probable tokens that sum to the probability P (default: 1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the same seed gives the same text (default: 0)"
    )
    parser.add_argument(
        "--n", type=int, default=1, metavar="N", help="the number of texts, with seeds S, S+1, … (default: 1)"
    )
    return parser


def _check(given: argparse.Namespace) -> None:
    rules = [
        ("--tokens", given.tokens, given.tokens >= 1, "at least 1"),
        ("--temperature", given.temperature, 0 <= given.temperature < float("inf"), "0 or more"),
        ("--top-k", given.top_k, given.top_k >= 1, "at least 1"),
        ("--top-p", given.top_p, 0 < given.top_p <= 1, "a number above 0, at most 1"),
        ("--seed", given.seed, given.seed >= 0, "a whole number from 0 on"),
        ("--n", given.n, given.n >= 1, "at least 1"),
    ]
    for name, value, valid, expected in rules:
        if not valid:
            raise UserError(f"{name} {value}: expected {expected}.")


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
    asked = str(run_config.load(folder).trainer.device)
    lacking = asked.startswith("cuda") and not torch.cuda.is_available()
    place, _ = device.choose("auto" if lacking else asked, "auto")
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
