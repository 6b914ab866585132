"""Checkpoints: files of plain tensors, numbers and text, replaced in one move. Their keys are spelled here alone."""

from __future__ import annotations

import io
import pickle
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from dlrun.errors import DamagedFile, UserError
from dlrun.storage.files.largest import largest_tensor
from dlrun.storage.files.record import describe, fits, misfit
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.files.unpacked import too_large

# to be raised when an older dlrun can no longer read the file
FORMAT = 1
STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""The keys under which files from elsewhere have a state dict."""
OTHER = {
    "last.pt": ("best.pt", "trains from the first step again"),
    "best.pt": ("last.pt", "goes on, and selects among the later validations"),
}
"""By a file of a run, the one beside it, and what resuming does without the first."""
C = TypeVar("C", bound="_Content")


class _Content:
    """A file's content: a dataclass's fields by their names."""

    def to_dict(self) -> dict[str, Any]:
        # `dataclasses.asdict` would copy the tensors
        return {"format": FORMAT} | {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Make the content; unknown keys, of a later version, are ignored.

        Raises `KeyError` for a missing field without a default.
        """
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{key: value for key, value in content.items() if key in known})
        except TypeError:
            raise KeyError(", ".join(sorted(known - {*content}))) from None


@dataclass(frozen=True)
class Checkpoint(_Content):
    """last.pt: everything that a resumed loop needs."""

    model: dict[str, Any]
    """The model's state dict."""
    optimizer: dict[str, Any]
    """The optimizer's."""
    average: list[Tensor] | None
    """The moving averages of the parameters, then of the running values of norms, if they are kept."""
    state: dict[str, Any]
    """The progress, as the fields of `engine.state.State`: a new number goes there, new tensors go beside it."""
    own: dict[str, Any] = field(default_factory=dict)
    """The state of the parts beside the model, as `engine.own.state` finds it."""
    observers: dict[str, Any] = field(default_factory=dict)
    """The state of the observers, their factors of the rate, and which of them has ended the training."""

    stream: dict[str, Any] = field(default_factory=dict)
    """The place in the stream of training samples, as `engine.reading.streams` keeps it."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Earlier checkpoints, for a run to go back to (`trainer.on_spike=rewind`)."""

    @property
    def step(self) -> int:
        return int(self.state["step"])


@dataclass(frozen=True)
class BestWeights(_Content):
    """best.pt: the best validation's model and metrics."""

    step: int
    metrics: dict[str, float]
    model: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LearnedSamples(_Content):
    """learned.pt: keys of the samples that a run's weights have learned from, those of `init_from` among them."""

    trained: Tensor
    """Of the training samples, int64 [N]."""
    trained_one_in: int
    """How many samples one of these keys stands for, as in `types.SampleKeys`."""
    chosen: Tensor
    """Of the validation samples, by which weights were chosen."""
    chosen_one_in: int
    unknown: list[str]
    """Why the keys are not all, a text for each reason."""


def save(path: Path, content: Checkpoint | BestWeights) -> None:
    """Replace a checkpoint in one move.

    Raises `OSError` if the disk is full; the old file is then still there.
    """
    path.parent.mkdir(exist_ok=True)
    _write(path, content)


def save_learned(path: Path, content: LearnedSamples) -> None:
    """Replace a learned.pt in one move."""
    _write(path, content)


def _write(path: Path, content: _Content) -> None:
    # in memory first: torch would write the file in many small pieces
    buffer = io.BytesIO()
    torch.save(content.to_dict(), buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a last.pt.

    Raises `UserError` as `read` does, or if the file lacks something.
    """
    return _made(Checkpoint, path, device)


def load_best(path: Path, device: torch.device | str = "cpu") -> BestWeights:
    """Load a best.pt.

    Raises `UserError` as `read` does, or if the file lacks something.
    """
    return _made(BestWeights, path, device)


def load_learned(path: Path) -> LearnedSamples:
    """Load a learned.pt.

    Raises `UserError` as `read` does, or if the file lacks something.
    """
    found = _made(LearnedSamples, path, "cpu")
    for keys in (found.trained, found.chosen):
        if keys.dtype != torch.int64 or keys.ndim != 1:
            raise DamagedFile(path, f"its keys are {keys.dtype} {list(keys.shape)}", _advice(path))
    return found


def load_model(path: Path) -> dict[str, Any]:
    """The state dict in a last.pt or best.pt, or in a file that `torch.save(model.state_dict(), …)` has written.

    Raises `UserError` as `read` does, or if there is none.
    """
    content = _load(path, "cpu")
    if isinstance(content, dict) and "format" not in content:
        return _state_dict(path, content)
    values = _checked(path, content).get("model")
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{path} is a checkpoint without weights: it has no `model`. Give a run's last.pt or best.pt.")
    return values


def _state_dict(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The state dict in a file from elsewhere, which may have it under a usual key."""
    found = [content, *(content[key] for key in STATE_DICTS if key in content)]
    for values in found:
        if (
            isinstance(values, dict)
            and values
            and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in values.items())
        ):
            return values
    keys = ", ".join(map(str, content)) or "none"
    raise UserError(
        f"{path} is no checkpoint of dlrun, and no state dict: its keys are {keys[:200]}. Write one by "
        f"`torch.save(model.state_dict(), FILE)`."
    )


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The keys and values of a file, tensors on `device`.

    No code in the file is run. Raises `UserError` if the file is missing or of another format, and `DamagedFile` if it
    was truncated or altered.
    """
    return _checked(path, _load(path, device))


def _load(path: Path, device: torch.device | str) -> Any:
    try:
        check_sums(path)
        # weights_only: a checkpoint from somebody else must not run code
        content = torch.load(path, map_location=device, weights_only=True)
        if reason := too_large(path, largest_tensor(content)):
            raise DamagedFile(path, reason, _advice(path))
        return content
    except DamagedFile:
        raise
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except pickle.UnpicklingError:
        # torch advises to load it without `weights_only`, which would run its code
        raise UserError(
            f"{path} cannot be read as a checkpoint of dlrun: it holds more than tensors and plain values."
        ) from None
    except Exception as error:  # of a file that is something else, the unpickler raises whatever it stumbles over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a checkpoint of dlrun: {reason}") from None


def _checked(path: Path, content: Any) -> dict[str, Any]:
    # a tensor could be neither equal nor unequal
    if not isinstance(content, dict) or not isinstance(given := content.get("format"), int) or given != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of dlrun (format {FORMAT}).")
    return content


def _advice(path: Path) -> str:
    """What to do about a damaged file, by its part in a run."""
    if path.name == "learned.pt":
        return "Put a copy of it back, or delete it: what the weights have learned from is then not known."
    if path.name not in OTHER:
        return "Put a copy of it back."
    other, without = OTHER[path.name]
    said = f"Put a copy of it back. Without one, delete it: `dlrun resume` then {without}."
    if (file := path.with_name(other)).exists():
        said += f"\nOr begin another run with the weights of {other}: dlrun train … init_from={shlex.quote(str(file))}"
    return said


def check_sums(path: Path) -> None:
    """Compare a file with the CRC-32 of each tensor in it.

    torch writes these sums and does not look at them. They take a quarter of the time of loading (0.2 s for 1 GB:
    `python -m benchmarks checkpoints`), and find every single altered bit. Raises `DamagedFile`.
    """
    if path.stat().st_size == 0:
        raise DamagedFile(path, "it is empty", _advice(path))
    if not zipfile.is_zipfile(path):
        return  # cut, or no checkpoint: torch says which
    try:
        with zipfile.ZipFile(path) as archive:
            # torch compresses nothing
            if reason := too_large(path, sum(entry.file_size for entry in archive.infolist())):
                raise DamagedFile(path, reason, _advice(path))
            altered = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError, zlib.error) as error:
        raise DamagedFile(path, f"it cannot be read ({error})", _advice(path)) from None
    if altered:
        raise DamagedFile(path, f"the content of {altered} was altered after it was written", _advice(path))


def _made(kind: type[C], path: Path, device: torch.device | str) -> C:
    try:
        made = kind.from_dict(read(path, device))
    except KeyError as missing:
        raise UserError(f"{path} is a checkpoint without {missing}.") from None
    if found := misfit(vars(made), kind):
        raise DamagedFile(path, found, _advice(path))
    if isinstance(made, Checkpoint) and not fits(step := made.state.get("step"), int):
        raise DamagedFile(path, describe("state.step", step), _advice(path))
    return made


@contextmanager
def taking(path: Path) -> Iterator[None]:
    """Have parts take the content of a checkpoint.

    Raises `DamagedFile` where they cannot: each knows its own part of it alone.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise DamagedFile(
            path, f"its content is none of this run's ({type(error).__name__}: {reason})", _advice(path)
        ) from error
