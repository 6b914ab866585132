"""Weights on their way from a checkpoint into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from dlrun import checkpoint
from dlrun.errors import UserError
from dlrun.rundir import RunDir, find


def of_run(folder: RunDir) -> tuple[dict[str, Any], int]:
    """Return the selected weights of a run (the last, if none are yet), and their step.

    Raises `UserError` if the run has no weights yet.
    """
    if folder.best.exists():
        content = checkpoint.load(folder.best)
        return content["model"], int(content["step"])
    if folder.last.exists():
        content = checkpoint.load(folder.last)
        return content["model"], int(content["state"]["step"])
    raise UserError(f"{folder.path} has no weights yet (status {folder.status()}). Type «dlrun resume {folder.id}».")


def start_from(reference: str, model: nn.Module) -> None:
    """Give `model` the weights that `init_from` names: a run, or a checkpoint's file.

    Raises `UserError` if there are none, or they are of another model.
    """
    file = Path(reference)
    values = _of_file(file) if file.is_file() else of_run(find(reference))[0]
    put(model, values, where=f"init_from={reference}")


def _of_file(file: Path) -> dict[str, Any]:
    values = checkpoint.load(file).get("model")
    if not isinstance(values, dict):
        raise UserError(f"{file} is a checkpoint without weights: it has no «model». Give a run's last.pt or best.pt.")
    return values


def put(model: nn.Module, values: dict[str, Any], *, where: str) -> None:
    """Load `values` into `model`.

    Raises `UserError` naming what differs, if they are of another model.
    """
    own = model.state_dict()
    differing = [
        f"{name}: {_shape(values, name)} there, {_shape(own, name)} here"
        for name in dict.fromkeys([*own, *values])
        if _shape(values, name) != _shape(own, name)
    ]
    if differing:
        listed = "\n  ".join(differing[:8] + ["…"] * (len(differing) > 8))
        raise UserError(f"The weights of {where} are of another model than this one:\n  {listed}")
    model.load_state_dict(values)


def _shape(state: dict[str, Any], name: str) -> str:
    return str(tuple(getattr(state[name], "shape", ()))) if name in state else "missing"
