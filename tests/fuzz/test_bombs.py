"""Small files that would become large, and files that would have others read, are refused."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from dlrun.datasets.files.containers import open_arrays
from dlrun.datasets.files.tables import table_chunks
from dlrun.datasets.files.tabular.read import read
from dlrun.errors import UserError
from dlrun.models.lora import merge
from dlrun.runs.weights.mlflow_model import read_exported
from dlrun.storage import checkpoint
from dlrun.storage.files import unpacked
from tests.fuzz.readers.saved import zipped

SIZE = 1 << 21


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "LEAST", 1 << 20)


def npz(path: Path) -> None:
    numpy.savez_compressed(path, x=numpy.zeros(SIZE // 8))


def parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": numpy.zeros(SIZE)}), path)


def table(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * (SIZE // 4)))


def long_line(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a" * SIZE))


def packed_checkpoint(path: Path) -> None:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(SIZE)}, file)
    with zipfile.ZipFile(file) as archive:
        path.write_bytes(zipped({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED))


def repeated_number(path: Path) -> None:
    inner: list[object] = [torch.zeros(1).expand(SIZE)]
    inner.append(inner)
    torch.save({"a": inner, "w": torch.zeros(1)}, path)


def repeated_bytes(path: Path) -> None:
    size, strides = [{"as_int": SIZE}], [{"as_int": 0}]
    meta = {"dtype": 7, "sizes": size, "strides": strides, "storage_offset": {"as_int": 0}}
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta}}}
    place = "m/data/weights"
    text = __import__("json").dumps(config).encode()
    path.write_bytes(zipped({f"{place}/model_weights_config.json": text, f"{place}/weight_0": bytes(4)}))


def all_arrays(path: Path) -> None:
    found = open_arrays(path)
    for name in found.arrays:
        found[name]


@pytest.mark.parametrize(
    ("name", "write", "open_file"),
    [
        ("x.npz", npz, all_arrays),
        ("x.parquet", parquet, read),
        ("x.csv.gz", table, read),
        ("x.csv.gz", table, lambda path: [*table_chunks(path, ",", width=2, size=100)]),
        ("x.csv.gz", long_line, read),
        ("x.pt", packed_checkpoint, checkpoint.load_model),
        ("x.pt", repeated_number, checkpoint.load_model),
        ("x.pt2", repeated_bytes, read_exported),
    ],
)
def test_a_small_file_does_not_become_a_large_one(
    tmp_path: Path, name: str, write: Callable[[Path], None], open_file: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    write(path)
    assert path.stat().st_size < SIZE // 100
    with pytest.raises(UserError, match=r"1,048,576"):
        open_file(path)
    # what is large by itself may be as large in memory
    with path.open("ab") as file:
        assert unpacked.too_large(path, 1 << 20) is None
        file.truncate(SIZE)
    assert unpacked.too_large(path, SIZE * 99) is None


def test_an_adapter_of_another_shape_is_not_multiplied() -> None:
    thin = torch.zeros(1, 1 << 20)
    with pytest.raises(RuntimeError, match="its adapter"):
        merge({"w": torch.zeros(2, 2), "w_lora_a": thin, "w_lora_b": thin.T, "w_lora_scale": torch.ones(())})


def test_arrays_of_hdf5_lie_in_their_own_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="pip install h5py")
    secret, path = tmp_path / "secret", tmp_path / "x.h5"
    secret.write_text("password")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = numpy.arange(3)
    with h5py.File(path, "w") as file:
        file.create_dataset("outside", (8,), "u1", external=[(str(secret), 0, 8)])
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        file.create_dataset("claimed", (SIZE,), "f8", chunks=(64,))
        file["own"] = numpy.arange(3)
    found = open_arrays(path)
    assert {*found.arrays} == {"outside", "virtual", "claimed", "own"}
    for name in ("outside", "virtual"):
        with pytest.raises(UserError, match="in other files"):
            found[name]
    with pytest.raises(UserError, match="1,048,576"):
        found["claimed"]
    assert found["own"].tolist() == [0, 1, 2]
