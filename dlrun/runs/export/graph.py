"""A model as one function of its inputs, to be traced: prepared or raw inputs in, tensors out."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.spec import TargetScale
from dlrun.datasets.tensors.standardise import Standardise, is_far
from dlrun.errors import UserError
from dlrun.nests.nest import Nest, map_nest
from dlrun.types import identity

INPUT, OUTPUT = "input", "output"


class Graph(nn.Module):
    """A model behind the preparation of raw inputs, if there is one.

    It returns a tensor, or a tuple of them where the model returns a tuple or a dict.
    """

    def __init__(self, model: nn.Module, prepare: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.prepare = prepare

    def forward(self, x: Nest) -> Tensor | tuple[Tensor, ...]:
        found = outputs(self.model(x if self.prepare is None else self.prepare(x)))
        return tuple(found.values()) if len(found) > 1 else next(iter(found.values()))


class Scale(nn.Module):
    """`Standardise` in operations on tensors of any batch size.

    >>> scale = Standardise((2, 1), mean=(1.0, 2.0), deviation=(2.0, 4.0))
    >>> Scale(scale)(torch.tensor([[3.0, 6.0]])).tolist()
    [[[1.0], [1.0]]]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, scale: Standardise) -> None:
        super().__init__()
        self.shape, self.indices = scale.shape, scale.indices
        self.dtype = torch.float64 if scale.is_far else torch.float32
        for name, values in (("mean", scale.mean), ("deviation", scale.deviation)):
            along = [1, len(values), *[1] * (len(scale.shape) - 1)] if len(values) > 1 else [1]
            self.register_buffer(name, torch.tensor(values, dtype=self.dtype).view(along))

    def forward(self, raw: Tensor) -> Tensor:
        x = raw.reshape(raw.shape[0], *self.shape)
        return x.long() if self.indices else ((x.to(self.dtype) - self.mean) / self.deviation).float()


class Function(nn.Module):
    """A preparation of the user's own."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._prepare = prepare

    def forward(self, raw: Tensor) -> Tensor:
        return self._prepare(raw)


class Restored(nn.Module):
    """A model whose output is in the unit of the raw targets, which it was trained on scaled.

    Several outputs are left as they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, scale: TargetScale) -> None:
        super().__init__()
        self.model = model
        # as `TargetScale.undo` has it
        kind = torch.float64 if is_far(scale.mean.abs().tolist(), scale.deviation.tolist()) else torch.float32
        self.register_buffer("mean", scale.mean.to(kind))
        self.register_buffer("deviation", scale.deviation.to(kind))

    def forward(self, x: Tensor) -> Any:
        found = self.model(x)
        fits = isinstance(found, Tensor) and found.shape[-1:] == self.mean.shape
        return found * self.deviation + self.mean if fits else found


def make_graph(model: nn.Module, prepare: Callable[[Tensor], Tensor] | None, scale: TargetScale | None = None) -> Graph:
    """A model as it is, or with the preparation of its raw inputs, and targets scaled back."""
    model = Restored(model, scale) if scale else model
    if prepare is None or prepare is identity:
        return Graph(model).eval()
    return Graph(model, Scale(prepare) if isinstance(prepare, Standardise) else Function(prepare)).eval()


def outputs(found: Any) -> dict[str, Tensor]:
    """A model's outputs by name.

    >>> one = torch.zeros(1)
    >>> [*outputs(one)], [*outputs((one, one))], [*outputs({"class": one, "box": one})]
    (['output'], ['output_0', 'output_1'], ['class', 'box'])

    Raises `UserError` for anything but a tensor, or a tuple, list or dict of them.
    """
    if isinstance(found, Tensor):
        return {OUTPUT: found}
    if isinstance(found, Mapping):
        named = {str(name): value for name, value in found.items()}
    elif isinstance(found, (tuple, list)):
        named = {f"{OUTPUT}_{i}": value for i, value in enumerate(found)}
    else:
        named = {}
    # Hugging Face's models return None where there is nothing
    named = {name: value for name, value in named.items() if value is not None}
    if not named or not all(isinstance(value, Tensor) for value in named.values()):
        kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in named.items())
        raise UserError(
            f"The model returns a {type(found).__name__}{f' ({kinds})' if kinds else ''}; a graph has tensors as its "
            "outputs. Its weights can be exported: --format safetensors"
        )
    return named


def trace(graph: Graph, x: Nest, *, tokens: bool) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """The program of a graph, and the names of its input's free axes.

    The batch is free, of a nest that of all its tensors; of `tokens` [B, T] the length too, up to that of `x`, if the
    model allows it.
    """
    batch = torch.export.Dim("batch")
    free: list[dict[int, Any]] = [{0: batch}]
    if tokens and x.shape[1] > 1:
        free.insert(0, {0: batch, 1: torch.export.Dim("tokens", max=x.shape[1])})
    failed: Exception = RuntimeError()
    for axes in free:
        try:
            with tracing():
                # a lookup of the forward of a module that a library has wrapped is not traced
                shapes = (map_nest(lambda _: axes, x),)  # noqa: B023
                return torch.export.export(graph, (x,), dynamic_shapes=shapes, strict=False), tuple(
                    axis.__name__ for axis in axes.values()
                )
        except UserError:
            raise
        except Exception as error:  # a model may do anything: torch has its own error for each
            failed = error
    raise failed


@contextmanager
def tracing() -> Iterator[None]:
    """Keep quiet, and on one thread, on which models take the operations of any size."""
    threads, level = torch.get_num_threads(), logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.set_num_threads(threads)
