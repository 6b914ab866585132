"""Checkpoints: files of plain tensors, numbers and text, replaced in one move."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from dlrun.errors import UserError
from dlrun.storage.files import write_atomically

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`; a reader sees the old file or the new one, never a part.

    Raises `OSError` if the disk is full; the old file is then still there.
    """
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT} | content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what `save` wrote, its tensors on `device`. No code in the file is run.

    Raises `UserError` if the file is missing, damaged, or of another format.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except Exception as error:  # of a file that is something else, the unpickler raises whatever it stumbles over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a checkpoint of dlrun: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of dlrun (format {FORMAT}).")
    return content
