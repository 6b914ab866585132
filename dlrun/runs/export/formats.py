"""The formats of an exported model: how each is written, and how it is asked without dlrun."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.errors import UserError
from dlrun.nests.nest import Nest, map_nest, named_leaves
from dlrun.runs.export.graph import INPUT, Graph, trace, tracing
from dlrun.storage.files.json_text import dumps

jit: Any = torch.jit  # its functions have no types
CARD = "card.json"
"""The name of the card within a .pt2 or a TorchScript file."""

Ask = Callable[[Nest], dict[str, Tensor]]
"""Inputs → a file's outputs by name."""


class Request(NamedTuple):
    """A graph to be written, an input that it takes, and what its file says of itself."""

    graph: Graph
    x: Nest
    tokens: bool
    card: dict[str, Any]

    def inputs(self) -> list[str]:
        """The names of the input, or of the tensors in it."""
        return [name or INPUT for name, _ in named_leaves(self.x)]

    def names(self) -> list[str]:
        """Of the outputs."""
        return [each["name"] for each in self.card["outputs"]]


@dataclass(frozen=True)
class Format:
    """A format by its name on the command line: `write` returns the free axes, `None` if the file does not say them."""

    title: str
    suffix: str
    write: Callable[[Request, Path], tuple[str, ...] | None]
    ask: Callable[[Path, list[str]], Ask]
    check: Callable[[], None] = lambda: None


def _write_pt2(request: Request, file: Path) -> tuple[str, ...]:
    program, free = trace(request.graph, request.x, tokens=request.tokens)
    with tracing():
        torch.export.save(program, file, extra_files={CARD: dumps(request.card)})
    return free


def _ask_pt2(file: Path, names: list[str]) -> Ask:
    with tracing():
        module = torch.export.load(file).module()
    return lambda x: _named(module(x), names)


def _write_onnx(request: Request, file: Path) -> tuple[str, ...]:
    program, free = trace(request.graph, request.x, tokens=request.tokens)
    with tracing():
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=request.inputs(),
            output_names=request.names(),
            # the names of the axes, which the program does not keep
            dynamic_shapes=(map_nest(lambda _: dict(enumerate(free)), request.x),),
        )
        made.model.metadata_props["dlrun"] = dumps(request.card)
        made.save(file, external_data=False)
    return free


def _ask_onnx(file: Path, names: list[str]) -> Ask:
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime  # type: ignore[import-not-found,unused-ignore]  # optional

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    else:
        # in numpy, slowly
        from onnx.reference import ReferenceEvaluator  # type: ignore[import-not-found,unused-ignore]  # optional

        session = ReferenceEvaluator(str(file))

    def ask(x: Nest) -> dict[str, Tensor]:
        given = {name or INPUT: each.numpy() for name, each in named_leaves(x)}
        return dict(zip(names, map(torch.from_numpy, session.run(names, given)), strict=True))

    return ask


def _check_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}. Type `pip install onnx onnxscript onnxruntime`, or leave "
            "--format out: a .pt2 needs torch alone."
        )


def _write_torchscript(request: Request, file: Path) -> None:
    with tracing():
        traced = jit.trace(request.graph, request.x, check_trace=False)
        traced.save(str(file), _extra_files={CARD: dumps(request.card)})


def _ask_torchscript(file: Path, names: list[str]) -> Ask:
    with tracing():
        module = jit.load(str(file))
    return lambda x: _named(module(x), names)


def _named(found: Any, names: list[str]) -> dict[str, Tensor]:
    return dict(zip(names, found if isinstance(found, (tuple, list)) else [found], strict=True))


GRAPHS = {
    "pt2": Format("torch.export", ".pt2", _write_pt2, _ask_pt2),
    "onnx": Format("ONNX", ".onnx", _write_onnx, _ask_onnx, _check_onnx),
    "torchscript": Format("TorchScript", ".ts", _write_torchscript, _ask_torchscript),
}
SAFETENSORS = "safetensors"
SUFFIXES = {each.suffix: name for name, each in GRAPHS.items()} | {".safetensors": SAFETENSORS}
"""By a file's suffix, its format."""
