"""A run's model written to a file, and the file's answers compared with the run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.datasets.tensors.spec import scale_of
from dlrun.errors import UserError
from dlrun.runs.export.card import make_card, tokenizer
from dlrun.runs.export.compare import Comparison, compare, first_line
from dlrun.runs.export.examples import Examples, check_fixed, examples
from dlrun.runs.export.formats import Format, Request
from dlrun.runs.export.graph import make_graph, outputs
from dlrun.runs.export.trained import TrainedModel
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.safetensors import read_safetensors, write_safetensors

WEIGHTS = "Its weights can: --format safetensors"

FIXED = "Its forward takes the size of the batch as a fixed number: write x.shape[0] where it has len(x).\n"


class Written(NamedTuple):
    """A file's card, how it compares with the run, and the free axes of its input."""

    card: dict[str, Any]
    compared: str
    free: tuple[str, ...] = ("batch",)


def write_graph(trained: TrainedModel, form: Format, file: Path, *, prepare: bool) -> Written:
    """Write the graph; with `prepare` it takes raw inputs, and returns targets in their own unit.

    Raises `UserError` if the format does not have what the model does, or the file's answers are others.
    """
    check_fixed(trained.predictor)
    shown = examples(trained, raw=prepare)
    card = _card(trained, shown, prepares=prepare)
    inside = (trained.predictor.prepare, scale_of(trained.predictor.spec)) if prepare else (None, None)
    graph = make_graph(trained.model, *inside)
    request = Request(graph, shown.given, trained.predictor.spec.task == "language", card)
    found, free = _write(trained, form, file, request, shown)
    compared = f"on {shown.origin} its outputs are the run's, to {found.largest:.2g} of values up to {found.scale:.3g}"
    return Written(card, compared, free)


def _write(
    trained: TrainedModel, form: Format, file: Path, request: Request, shown: Examples
) -> tuple[Comparison, tuple[str, ...]]:
    try:
        free = form.write(request, file)
    except UserError:
        raise
    except Exception as error:  # a model may do anything: the exporters have an error for each
        raise UserError(
            f"The model `{type(trained.model).__name__}` cannot be exported to {form.title}: {first_line(error)}\n"
            f"{FIXED if 'Constraints violated' in str(error) else ''}{WEIGHTS}"
        ) from None
    text = trained.predictor.spec.task == "language"
    try:
        found = compare(
            form.ask(file, request.names()),
            # behind the preparation
            request.graph.model,
            request.x,
            shown.prepared,
            tokens=text,
            free="tokens" in (free or ()),
        )
    except UserError:
        if "tokens" not in (free or ()):
            raise
        # traced for any length, and right for the longest alone
        file.unlink()
        return _write(trained, form, file, request._replace(tokens=False), shown)
    return found, ("batch", "tokens") if found.shorter else ("batch",)


def write_weights(trained: TrainedModel, file: Path, card_file: Path) -> Written:
    """Write the weights, and the card as JSON beside them; raises `UserError`."""
    shown = examples(trained, raw=False)
    card = _card(trained, shown, prepares=False)
    values = trained.model.state_dict()
    others = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(f"The model's state has more than tensors ({', '.join(others)}), which safetensors has not.")
    try:
        write_safetensors(file, values, {"format": "pt", "dlrun.run": trained.folder.id})
    except ValueError as error:
        raise UserError(f"The weights cannot be written: {error}.") from None
    lines = ",\n".join(f"  {dumps(name)}: {dumps(value)}" for name, value in card.items())
    card_file.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    read = read_safetensors(file)
    if [*read] != [*values] or not all(_same_bits(read[name], value) for name, value in values.items()):
        raise UserError("The file's weights, read again, are not the run's. Is the disk damaged?")
    return Written(card, "its weights, read again, are the run's to the bit")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))


def _card(trained: TrainedModel, shown: Examples, *, prepares: bool) -> dict[str, Any]:
    with torch.no_grad():
        found = outputs(trained.model(shown.prepared))
    card = make_card(trained, shown.given, found, prepares=prepares)
    return card | tokenizer(trained.folder) | {"compared_on": shown.origin}
