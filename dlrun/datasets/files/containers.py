"""Named arrays in one file: .npz, safetensors, HDF5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlrun.datasets.files.missing import no_such
from dlrun.errors import DataError, UserError, did_you_mean
from dlrun.storage.files.safetensors import read_safetensors
from dlrun.storage.files.unpacked import too_large

ENDINGS = (".npz", ".npy", ".safetensors", ".h5", ".hdf5")

WHOLE = ""
"""The name of the array in a .npy file."""


@dataclass(frozen=True)
class Container:
    """The arrays of a file: each is read when it is asked for."""

    path: Path
    arrays: Mapping[str, Callable[[], Any]]

    def __getitem__(self, name: str) -> Any:
        try:
            return self.arrays[name]()
        except UserError:
            raise
        except Exception as error:  # of a damaged file, the libraries raise whatever they stumble over
            raise DataError(_unreadable(self.path, error)) from None

    def check(self, key: str, name: str) -> None:
        """Raise `DataError` if there is no such array."""
        if name not in self.arrays:
            raise DataError(
                f"{key}={name}: {self.path} has no such array.{did_you_mean(name, self.arrays)} It has: {self.listed}."
            )

    @property
    def listed(self) -> str:
        """The names, for a message."""
        return ", ".join([*self.arrays][:12]) + (" …" if len(self.arrays) > 12 else "")


def open_arrays(path: Path, *, key: str = "dataset.path") -> Container:
    """The arrays in a file; that of a .npy file is called `WHOLE`.

    `key` is what gave the path. Raises `DataError` for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise DataError(no_such(key, path, "a file of arrays"))
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{key}: {path} is a `{ending}` file; expected one of {', '.join(ENDINGS)}.")
    try:
        return Container(path, _arrays(path, ending))
    except (UserError, ImportError):
        raise
    except Exception as error:
        raise DataError(_unreadable(path, error)) from None


def _arrays(path: Path, ending: str) -> dict[str, Callable[[], Any]]:
    if ending == ".safetensors":
        return {name: partial(_given, tensor) for name, tensor in read_safetensors(path).items()}
    if ending in (".h5", ".hdf5"):
        return _hdf5(path)
    import numpy

    # a pickle could run code
    if ending == ".npy":
        return {WHOLE: partial(numpy.load, path, allow_pickle=False)}
    with path.open("rb") as file, numpy.load(file, allow_pickle=False) as found:
        return {name: partial(_read_npz, path, name) for name in found.files}


def _read_npz(path: Path, name: str) -> Any:
    import numpy

    with path.open("rb") as file, numpy.load(file, allow_pickle=False) as found:
        entries = found.zip.NameToInfo
        _check_size(path, (entries.get(f"{name}.npy") or entries[name]).file_size)
        return found[name]


def _hdf5(path: Path) -> dict[str, Callable[[], Any]]:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: HDF5 files need h5py. Type pip install h5py") from None
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, each: names.append(name) if isinstance(each, h5py.Dataset) else None)
    return {name: partial(_read_hdf5, path, name) for name in names}


def _read_hdf5(path: Path, name: str) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        found = file[name]
        # a file from elsewhere could have any file of this machine read so
        if found.is_virtual or found.external:
            raise ValueError(f"the numbers of {name} lie in other files. Copy them into one: f['x'] = other['x'][()]")
        # of what was never written, a few bytes claim any shape
        _check_size(path, found.nbytes)
        return found.asstr()[()] if h5py.check_string_dtype(found.dtype) else found[()]


def _check_size(path: Path, size: int) -> None:
    if reason := too_large(path, size):
        raise ValueError(f"{reason}. If you trust it, save it uncompressed")


def _given(value: Any) -> Any:
    return value


def _unreadable(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if "allow_pickle" in reason:
        reason = "it holds Python objects, which could run code. Save numbers or texts: numpy.savez(path, x=x, y=y)"
    return f"{path} cannot be read: {reason}"
