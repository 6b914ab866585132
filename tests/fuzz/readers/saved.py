"""Files of tensors: checkpoints, state dicts, exported models, safetensors."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrun.runs.weights import loading
from dlrun.runs.weights.mlflow_model import read_exported
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights, Checkpoint, LearnedSamples
from dlrun.storage.files.safetensors import read_safetensors, write_safetensors
from tests.fuzz.reader import Reader, every


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@cache
def checkpoints() -> Sequence[bytes]:
    """A last.pt, a best.pt, a learned.pt and state dicts."""
    model = nn.Linear(3, 2).state_dict()
    keys = torch.arange(5)
    state = {"step": 3, "best_step": 2, "generators": {"cpu": torch.get_rng_state()[:16]}}
    last = Checkpoint(dict(model), {"momentum": [torch.zeros(3)], "lr": 0.1}, [torch.zeros(2)], state)
    best = BestWeights(2, {"val/loss": 0.5}, dict(model))
    learned = LearnedSamples(keys, 1, keys, 1, ["why"])
    adapters = {
        "a.lora_A.weight": torch.zeros(2, 3),
        "a.lora_B.weight": torch.zeros(2, 2),
        "a.weight": torch.zeros(2, 3),
    }
    odd = {"w": torch.eye(3).to_sparse(), "q": torch.zeros(1).expand(4), "h": torch.zeros(2, dtype=torch.bfloat16)}
    return [_saved(each) for each in (last.to_dict(), best.to_dict(), learned.to_dict(), model, adapters, odd)]


@cache
def pickles() -> Sequence[bytes]:
    """The pickles of checkpoints whose tensors have 64 bytes each."""
    w, n = torch.zeros(4, 4), torch.arange(8)
    state = {"step": 3, "best_step": 2}
    contents = (
        Checkpoint({"w": w}, {"momentum": [w], "lr": 0.1}, [w], state).to_dict(),
        BestWeights(2, {"val/loss": 0.5}, {"w": w.clone(), "s": torch.eye(4).to_sparse()}).to_dict(),
        LearnedSamples(n, 1, n.clone(), 1, ["why"]).to_dict(),
        {"w": w, "w_lora_a": w[:1], "w_lora_b": w[:, :1], "w_lora_scale": w[0, 0], "e": w[:1, :1].expand(3, 3)},
    )
    found = []
    for content in contents:
        with zipfile.ZipFile(io.BytesIO(_saved(content))) as archive:
            found.append(next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")))
    return found


def _with_pickle(content: bytes) -> bytes:
    """A checkpoint with another pickle, and the sums of the archive right."""
    files = {"archive/data.pkl": content, "archive/version": b"3\n", "archive/byteorder": b"little"}
    return zipped(files | {f"archive/data/{n}": bytes(range(64)) for n in range(6)})


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def _read_weights(path: Path) -> None:
    loading.digest(str(path))


READ_CHECKPOINT = every(
    checkpoint.load, checkpoint.load_best, checkpoint.load_learned, checkpoint.load_model, _read_weights
)


def _safetensors() -> list[bytes]:
    path = Path(f"/dev/shm/fuzz-{id(object())}.safetensors")
    try:
        write_safetensors(path, {"w": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.int64)}, {"format": "pt"})
        return [path.read_bytes()]
    finally:
        path.unlink(missing_ok=True)


def _safetensors_head() -> list[bytes]:
    content = _safetensors()[0]
    return [content[8 : 8 + int.from_bytes(content[:8], "little")]]


def _with_head(head: bytes) -> bytes:
    return len(head).to_bytes(8, "little") + head + bytes(40)


def _exported(config: bytes) -> bytes:
    place = "archive/data/weights"
    return zipped({f"{place}/model_weights_config.json": config, f"{place}/weight_0": bytes(48)})


def _exported_config() -> list[bytes]:
    size = [{"as_int": 3}, {"as_int": 4}]
    meta = {"dtype": 7, "sizes": size, "strides": [{"as_int": 4}, {"as_int": 1}], "storage_offset": {"as_int": 0}}
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
    return [json.dumps({"config": {"w": entry}}).encode()]


def _safetensors_weights(path: Path) -> None:
    read_safetensors(path)
    _read_weights(path)


READERS = (
    Reader("checkpoint", "last.pt", checkpoints, READ_CHECKPOINT),
    Reader("checkpoint-pickle", "best.pt", pickles, READ_CHECKPOINT, pack=_with_pickle),
    Reader("safetensors", "w.safetensors", _safetensors, _safetensors_weights),
    Reader("safetensors-head", "w.safetensors", _safetensors_head, _safetensors_weights, tree=True, pack=_with_head),
    Reader("exported", "model.pt2", _exported_config, read_exported, tree=True, pack=_exported),
    Reader("exported-archive", "model.pt2", lambda: [_exported(c) for c in _exported_config()], read_exported),
)
