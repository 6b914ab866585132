"""`dlrun export`: a run's model in a file that other programs read."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from dlrun.errors import UserError, did_you_mean
from dlrun.runs.export.formats import GRAPHS, SAFETENSORS, SUFFIXES
from dlrun.runs.export.trained import TrainedModel, load
from dlrun.runs.export.write import Written, write_graph, write_weights
from dlrun.storage.files.replacing import replacing
from dlrun.storage.lookup import find
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser

FORMATS = {**{name: each.suffix for name, each in GRAPHS.items()}, SAFETENSORS: ".safetensors"}
DEPRECATED = "TorchScript is deprecated (torch 2.13): prefer --format pt2, or --format onnx for other languages."


def main(argv: list[str]) -> int:
    """Write the file, if its answers are the run's."""
    arguments = _parser().parse_args(argv)
    kind, file = _place(arguments.run, arguments.file, arguments.format)
    if kind in GRAPHS:
        GRAPHS[kind].check()
    elif arguments.prepare:
        raise UserError(f"--prepare: {SAFETENSORS} holds weights alone. The card beside them says how to prepare.")
    folder = find(arguments.run)
    file = file or Path(f"model-{folder.id.replace('/', '-')}{FORMATS[kind]}")
    files = [file, *([_card_of(file)] if kind == SAFETENSORS else [])]
    for path in files:
        _check_free(path, force=arguments.force)
    if kind == "torchscript":
        output.warn(DEPRECATED)
    trained = load(folder, arguments.weights)
    if arguments.prepare and trained.predictor.spec.task == "language":
        raise UserError("--prepare: tokens are the model's inputs as they are. Leave it out.")
    try:
        with ExitStack() as stack:
            places = [stack.enter_context(replacing(path)) for path in files]
            output.live(f"exporting {type(trained.model).__name__}")
            if kind == SAFETENSORS:
                written = write_weights(trained, *places)
            else:
                written = write_graph(trained, GRAPHS[kind], *places, prepare=arguments.prepare)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}.") from None
    _report(trained, kind, files, written)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dlrun export",
        description="Write a run's model, with its selected weights, to a file that other programs read: torch.export "
        "(.pt2), ONNX, safetensors with a card in JSON, or TorchScript. The file's answers to some validation samples "
        "are compared with the run's; a file that differs is not left.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or the beginning of its id")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="(default: model-ID.pt2, by the format)")
    parser.add_argument("--format", choices=list(FORMATS), help="(default: by the file's suffix, else pt2)")
    parser.add_argument(
        "--prepare", action="store_true", help="put the preparation of raw inputs inside: the file takes raw ones"
    )
    parser.add_argument(
        "--weights", choices=["best", "last"], default="best", help="the selected ones (default), or the last"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser


def _place(run: str, file: Path | None, kind: str | None) -> tuple[str, Path | None]:
    """The format and the file; raises `UserError` where they contradict each other."""
    if file is None:
        return kind or "pt2", None
    known = SUFFIXES.get(file.suffix)
    if kind is None and known is None:
        close = did_you_mean(file.suffix, SUFFIXES)
        raise UserError(
            f"{file}: which format is `{file.suffix}`?{close} Known are {', '.join(SUFFIXES)}; or type "
            f"`dlrun export {run} {file} --format {'|'.join(FORMATS)}`."
        )
    if kind is not None and known not in (None, kind):
        raise UserError(f"{file} would be a {known} file, and --format says {kind}. Leave one of them out.")
    return kind or str(known), file


def _card_of(file: Path) -> Path:
    return file.with_suffix(".json")


def _check_free(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected a file, such as {path / 'model.pt2'}.")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}.")
    if path.exists() and not force:
        raise UserError(f"{path} exists. Give another name, or add --force to overwrite it.")


def _report(trained: TrainedModel, kind: str, files: list[Path], written: Written) -> None:
    title = GRAPHS[kind].title if kind in GRAPHS else SAFETENSORS
    size = sum(path.stat().st_size for path in files)
    beside = f", {files[1]}" if len(files) > 1 else ""
    output.say(f"{files[0]}{beside}  {title}, {_size(size)}, {trained.weights} weights (step {trained.step})")
    for kinds in ("inputs", "outputs"):
        for each in written.card[kinds]:
            shape = [*each["shape"]]
            if trained.predictor.spec.task == "language" and "tokens" in written.free:
                shape[1] = f"tokens ≤ {shape[1]}"
            said = f": {each['is']}" if each.get("is") else ""
            output.say(f"  {each['name']:8} {each['dtype']} [{', '.join(map(str, shape))}]{said}")
    output.say(f"  {written.compared}")
    if trained.predictor.views is not None:
        output.say("  evaluation.views is not in the file: it has the model alone")


def _size(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.1f} kB"
