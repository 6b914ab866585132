"""Files of arrays and of the usual data sets: .npy, .npz, HDF5, idx, CIFAR-10, and what is compressed."""

from __future__ import annotations

import gzip
import importlib.util
import io
import lzma
import zlib
from pathlib import Path

import numpy

from dlrun.datasets import cifar10
from dlrun.datasets.files import idx
from dlrun.datasets.files.containers import open_arrays
from dlrun.datasets.files.given import samples
from dlrun.datasets.files.unpack import TooLarge, unpack
from dlrun.errors import DataError
from dlrun.types import RawInputs
from tests.datasets.test_files import old_pickle
from tests.fuzz.reader import Reader, every
from tests.fuzz.readers.saved import zipped

ARRAYS = (numpy.arange(12.0).reshape(3, 4), numpy.arange(6, dtype="uint8").reshape(2, 3), numpy.array(["a", "bc"]))


def _npy() -> list[bytes]:
    found = []
    for array in ARRAYS:
        file = io.BytesIO()
        numpy.save(file, array)
        found.append(file.getvalue())
    pickled = io.BytesIO()
    numpy.save(pickled, numpy.array([{}], dtype=object))
    return [*found, pickled.getvalue()]


def _npz() -> list[bytes]:
    found = []
    for write in (numpy.savez, numpy.savez_compressed):
        file = io.BytesIO()
        write(file, x=ARRAYS[0], y=ARRAYS[1])  # type: ignore[operator]
        found.append(file.getvalue())
    return found


def _npz_of(array: bytes) -> bytes:
    return zipped({"x.npy": array})


def _hdf5() -> list[bytes]:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made["x"] = ARRAYS[0]
        made.create_dataset("group/y", data=ARRAYS[1], compression="gzip")
        made["texts"] = ["a", "bc"]
        made["soft"] = h5py.SoftLink("/x")
    return [file.getvalue()]


def _read_arrays(path: Path) -> None:
    found = open_arrays(path)
    for name in found.arrays:
        found[name]


def _read_samples(path: Path) -> None:
    samples.read(path, RawInputs(shape=(4,), dtype="float32"))


def _idx() -> list[bytes]:
    return [
        b"\0\0\x08\x03" + b"".join(n.to_bytes(4) for n in (2, 3, 3)) + bytes(18),
        b"\0\0\x08\x01\0\0\0\x04" + bytes(4),
    ]


def _cifar() -> list[bytes]:
    return [old_pickle(numpy.zeros((2, 3072), dtype="uint8"), [0, 1])]


def _unpack(path: Path) -> None:
    try:
        unpack(path, 1 << 16)
    except (TooLarge, OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(str(error)) from None


READERS = (
    Reader("npy", "x.npy", _npy, every(_read_arrays, _read_samples)),
    Reader("npz", "x.npz", _npz, _read_arrays),
    Reader("npz-head", "x.npz", _npy, _read_arrays, pack=_npz_of),
    Reader("idx", "x-idx3-ubyte", _idx, lambda path: idx.parse(path.read_bytes())),
    Reader("cifar10", "data_batch_1", _cifar, lambda path: cifar10.parse(path.read_bytes())),
    Reader("gzip", "x.gz", lambda: [gzip.compress(bytes(1 << 17)), gzip.compress(b"ab")], _unpack),
    Reader("xz", "x.xz", lambda: [lzma.compress(bytes(1 << 17)), lzma.compress(b"ab")], _unpack),
    *((Reader("hdf5", "x.h5", _hdf5, _read_arrays),) if importlib.util.find_spec("h5py") else ()),
)
