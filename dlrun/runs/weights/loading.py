"""Weights from a checkpoint into a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import isclose, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.config import trust
from dlrun.engine.own.asked import restore_attributes
from dlrun.errors import DamagedFile, UserError
from dlrun.models.lora import merge
from dlrun.runs.weights.fitting import fit
from dlrun.runs.weights.mlflow_model import is_model, read_model
from dlrun.storage import checkpoint, journal
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.files.safetensors import read_safetensors
from dlrun.storage.lookup import find
from dlrun.storage.rundir import RunDir


def of_run(folder: RunDir) -> tuple[dict[str, Any], int]:
    """The selected weights of a run, and their step.

    Without a best validation these are the last. Raises `UserError` if it has none yet, and `DamagedFile` if the best
    are lost.
    """
    weights = selected(folder)
    return weights.model, weights.step


def selected(folder: RunDir) -> BestWeights:
    """As `of_run`, with the state of the run's other parts."""
    weights = _stored(folder)
    _check_selected(weights.step, folder)
    return weights


def _stored(folder: RunDir) -> BestWeights:
    if folder.best.exists():
        best = checkpoint.load_best(folder.best)
        check_own(folder, folder.best, best.step, best.metrics)
        return best
    if folder.last.exists():
        last = checkpoint.load(folder.last)
        _check_never_validated(last, folder)
        return BestWeights(last.step, {}, last.model, last.own)
    raise UserError(f"{folder.path} has no weights yet (status {folder.status()}). Type `dlrun resume {folder.id}`.")


def start_from(reference: str, model: nn.Module, *, skip: Sequence[str] = ()) -> str:
    """Load the weights of `init_from`, but for the names of `skip`; returns their SHA-256.

    `reference` is a run, a model of MLflow, or a file: a checkpoint's, a state dict's, or one of safetensors. Raises
    `UserError` if there are none, or they are of another model.
    """
    values = _named(reference)
    fit(model, values, skip, where=f"init_from={reference}")
    return _digest(values)


def digest(reference: str | None) -> str | None:
    """The SHA-256 of the weights of `init_from`; None without one."""
    return _digest(_named(reference)) if reference else None


def _named(reference: str) -> dict[str, Any]:
    """The weights of `init_from`, adapters merged into them."""
    values = _read(reference)
    try:
        return merge(values)
    except (KeyError, RuntimeError, AttributeError) as error:  # a file of anybody's may have any tensors
        raise UserError(f"init_from={reference}: its adapters do not fit its matrices: {error}") from None


def _read(reference: str) -> dict[str, Any]:
    if is_model(reference):
        return read_model(reference).values
    file = Path(reference)
    if not file.is_file():
        return of_run(find_run(reference))[0]
    return read_safetensors(file) if file.suffix == ".safetensors" else checkpoint.load_model(file)


def find_run(reference: str) -> RunDir:
    """The run that `init_from` names where it is no file; raises `UserError`."""
    # ids have no suffix, and a run's folder none of these
    if Path(reference).suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        raise UserError(f"init_from={reference}: there is no such file. Expected a file, a run or a model of MLflow.")
    return find(reference)


def _digest(values: dict[str, Any]) -> str:
    hashed = hashlib.sha256()
    for name, value in sorted(values.items()):
        # dtype and shape too: the same bytes of another shape are other weights
        if isinstance(value, Tensor):
            hashed.update(f"{name} {value.dtype} {list(value.shape)}\0".encode())
            hashed.update(_strided(value).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            hashed.update(f"{name} {value!r}\0".encode())
    return hashed.hexdigest()


def _strided(value: Tensor) -> Tensor:
    """The numbers of a tensor that is sparse, quantised or without any: it may be one that is skipped."""
    value = value.detach()
    if value.is_meta:
        return torch.empty(0, dtype=value.dtype)
    value = value.dequantize() if value.is_quantized else value.resolve_conj().resolve_neg()
    return value if value.layout is torch.strided else value.to_dense()


def check_own(folder: RunDir, file: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Raise `DamagedFile` for a checkpoint of another run: its journal has another validation after `step` steps.

    A journal that has lost that step says nothing.
    """
    logged = journal.validations(folder.journal, step)
    if logged and not any(_agree(metrics, each) for each in logged):
        raise DamagedFile(
            file,
            f"it is of another run than the journal beside it, whose validation of step {step} has other numbers",
            "Put the run's own copies of both back.",
        )


def _agree(metrics: Mapping[str, float], logged: Mapping[str, float]) -> bool:
    both = [(value, logged[name]) for name, value in metrics.items() if name in logged]
    return all(isclose(a, b, rel_tol=1e-6) or (isnan(a) and isnan(b)) for a, b in both)


def _check_never_validated(last: Checkpoint, folder: RunDir) -> None:
    """Raise `DamagedFile` if there was a best.pt: the last weights must not pass for the best."""
    step = last.state.get("best_step")
    if step is not None:
        raise DamagedFile(
            folder.best,
            f"it is missing. It held the weights of step {step}, the best validation",
            f"Put a copy of it back; or train on from the last weights: dlrun train … init_from={folder.last}",
        )


def _check_selected(step: int, folder: RunDir) -> None:
    """Raise `DamagedFile` if a finished run has selected the weights of another step."""
    summary = folder.summary()
    if summary.status == "finished" and summary.best_step not in (None, step):
        raise DamagedFile(
            folder.best,
            f"it holds the weights of step {step}, and the run has selected those of step {summary.best_step}",
            f"Put a copy of the selected ones back; or train on from these: dlrun train … init_from={folder.best}",
        )


def put_asked(model: nn.Module, weights: BestWeights, folder: RunDir) -> None:
    """Load a run's weights into a model to be asked, adapters merged, and the attributes that its forward changes.

    Raises `UserError` if they are of another model, or set what a checkpoint may not.
    """
    put(model, merge(weights.model), where=str(folder.path))
    if weights.own:
        with checkpoint.taking(folder.best if folder.best.exists() else folder.last):
            restore_attributes({"model": model}, weights.own, trust.trusted_names())


def put(model: nn.Module, values: dict[str, Any], *, where: str) -> None:
    """Load `values` into `model`.

    Raises `UserError` naming what differs, if they are of another model.
    """
    try:
        # torch decides: a model of counts has buffers that take the sizes of what is loaded
        model.load_state_dict(values)
    except (RuntimeError, AttributeError, TypeError) as error:  # the latter of values that are no tensors
        listed = "\n  ".join(_differing(values, model.state_dict()) or [str(error)])
        raise UserError(f"The weights of {where} are of another model than this one:\n  {listed}") from None


def _differing(values: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """A line for each name with another shape."""
    differing = [
        f"{name}: {_shape(values, name)} there, {_shape(own, name)} here"
        for name in dict.fromkeys([*own, *values])
        if _shape(values, name) != _shape(own, name)
    ]
    # of another depth, a model differs in hundreds of names
    return differing[:8] + ["…"] * (len(differing) > 8)


def _shape(state: dict[str, Any], name: str) -> str:
    return str(tuple(getattr(state[name], "shape", ()))) if name in state else "missing"
