"""The weights of a model that MLflow has: models:/NAME/1, models:/NAME@ALIAS, runs:/RUN/model.

Read are the exported graph that dlrun stores (`model.pt2`, its weights alone), safetensors, and state dicts
(`mlflow.pytorch.log_state_dict`). A pickled module is not: to read it means running its code.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.errors import DamagedFile, UserError
from dlrun.storage import checkpoint
from dlrun.storage.files.safetensors import read_safetensors
from dlrun.storage.files.unpacked import too_large
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hide_secrets
from dlrun.tracking.mlflow.store import prepare
from dlrun.tracking.mlflow.uri import artifact_folder, sqlite_file, store_address, using

SCHEMES = ("models:/", "runs:/")

# the numbers of torch.export's archives, torch._export.serde.schema.ScalarType
TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
CONFIG = "data/weights/model_weights_config.json"
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, StopIteration, OSError, NotImplementedError, RecursionError),
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError),
)
"""What reading raises for an archive of anything else."""


class StoredModel(NamedTuple):
    """The weights of a model, and the id of the dlrun run that stored it, if one did."""

    values: dict[str, Any]
    run: str | None


def is_model(reference: str) -> bool:
    """Does `init_from` name a model of MLflow?"""
    return reference.startswith(SCHEMES)


def read_model(reference: str) -> StoredModel:
    """The weights of a model in the store of `MLFLOW_TRACKING_URI`, or in that of the outputs folder.

    Raises `UserError` if there is no such model, or its weights cannot be read without running code.
    """
    address = store_address()
    file = sqlite_file(address)
    if file is not None and not file.exists():
        raise UserError(
            f"init_from={reference}: there is no MLflow store {file}. Set MLFLOW_TRACKING_URI to the store's address."
        )
    return cached_model(reference, address)


@lru_cache(maxsize=1)
def cached_model(reference: str, address: Address) -> StoredModel:
    with tempfile.TemporaryDirectory() as folder, using(address):
        import mlflow  # takes seconds

        try:
            prepare(address, artifact_folder())
            mlflow.artifacts.download_artifacts(reference, dst_path=folder)
            run = _run_of(reference)
        except Exception as error:  # of MLflow, of a server, of its storage
            said = (hide_secrets(str(error)).splitlines() or [type(error).__name__])[0]
            raise UserError(f"init_from={reference}: MLflow at {address} does not have it: {said}") from None
        return StoredModel(_read(Path(folder), reference), run)


def _run_of(reference: str) -> str | None:
    """The id of dlrun's run behind a model."""
    from mlflow import MlflowClient
    from mlflow.models import get_model_info

    client: Any = MlflowClient()
    scheme, _, rest = reference.partition(":/")
    if scheme == "runs":
        run_id = rest.strip("/").partition("/")[0]
    else:
        info: Any = get_model_info(reference)
        # of models of MLflow 3 the run is kept with the model, not in its file
        run_id = info.run_id or client.get_logged_model(info.model_id).source_run_id
    found: str | None = client.get_run(run_id).data.tags.get("dlrun.id") if run_id else None
    return found


def _read(folder: Path, reference: str) -> dict[str, Any]:
    files = {file.name: file for file in sorted(folder.rglob("*")) if file.is_file()}
    safe = [file for name, file in files.items() if name.endswith(".safetensors")]
    if "model.pt2" in files:
        return read_exported(files["model.pt2"])
    if "state_dict.pth" in files:
        return checkpoint.load_model(files["state_dict.pth"])
    if len(safe) == 1:
        return read_safetensors(safe[0])
    raise UserError(
        f"init_from={reference}: its files are {', '.join(files) or 'none'}. A pickled module is not read, for that "
        f"runs its code. If you trust it, write its weights to a file and begin with that:\n"
        f"  torch.save(mlflow.pytorch.load_model({reference!r}).state_dict(), 'weights.pt')"
    )


def read_exported(path: Path) -> dict[str, Tensor]:
    """The weights in an archive of `torch.export.save`; its graph is not looked at.

    Raises `DamagedFile` for anything else.
    """
    advice = "Store the model again."
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(entry.file_size for entry in archive.infolist()))
            config = next(name for name in archive.namelist() if name.endswith(CONFIG))
            entries, place = json.loads(archive.read(config))["config"], config.rpartition("/")[0]
            # several may name the same bytes, or repeat them
            _check_size(path, sum(_size(entry["tensor_meta"]) for entry in entries.values()))
            return {name: _tensor(archive, place, entry) for name, entry in entries.items()}
    except UNREADABLE as error:
        found = f"no weights of an exported model are found in it ({type(error).__name__}: {error})"
        raise DamagedFile(path, found, advice) from None


def _check_size(path: Path, size: int) -> None:
    if reason := too_large(path, size):
        raise ValueError(reason)


def _size(meta: dict[str, Any]) -> int:
    """The bytes of a tensor."""
    return prod(int(size["as_int"]) for size in meta["sizes"]) * TYPES[meta["dtype"]].itemsize


def _tensor(archive: zipfile.ZipFile, place: str, entry: dict[str, Any]) -> Tensor:
    meta = entry["tensor_meta"]
    shape, strides = ([int(size["as_int"]) for size in meta[key]] for key in ("sizes", "strides"))
    if entry["use_pickle"]:
        raise ValueError("a tensor is pickled")
    data = bytearray(archive.read(f"{place}/{entry['path_name']}"))
    if not prod(shape):
        return torch.empty(shape, dtype=TYPES[meta["dtype"]])
    flat = torch.frombuffer(data, dtype=TYPES[meta["dtype"]])
    return flat.as_strided(shape, strides, int(meta["storage_offset"]["as_int"])).contiguous()
