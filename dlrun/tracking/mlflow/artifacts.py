"""The files of a run in MLflow: copied into a local store's folder, else sent by MLflow's client."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dlrun.storage.files.links import leads_out
from dlrun.storage.files.replacing import write_atomically
from dlrun.terminal.escape import encodable
from dlrun.tracking.mlflow.client import open_client
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.uri import has_server


@dataclass(frozen=True)
class Artifacts:
    """A run's artifacts. Files of the same name are replaced.

    `folder` is one of the run's page; None is its top.
    """

    address: Address
    run_id: str
    artifact_uri: str

    def send_file(self, file: Path, folder: str) -> None:
        place = self._place()
        if place is None:
            self._sender().log_artifact(*self._run_argument(), str(file), folder)
        else:
            _copy(file, _within(place, folder))

    def send_folder(self, files: Path, folder: str | None) -> None:
        """Store all files under a folder."""
        place = self._place()
        if place is None:
            self._sender().log_artifacts(*self._run_argument(), str(files), folder)
            return
        for file in files.rglob("*"):
            if file.is_file():
                _copy(file, _within(place, Path(folder or "", file.relative_to(files)).parent))

    def send_text(self, text: str, name: str) -> None:
        """Store a text as the file `name`, for example `samples/step-000500.txt`."""
        text = encodable(text)
        place = self._place()
        if place is None:
            open_client(self.address).log_text(self.run_id, text, name)
            return
        folder = _within(place, Path(name).parent)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / Path(name).name, text.encode())

    def _place(self) -> Path | None:
        """The artifacts' local folder; None if they are elsewhere."""
        parts = urlsplit(self.artifact_uri)
        local = (
            parts.scheme in ("", "file") and parts.netloc in ("", "localhost") and not (parts.query or parts.fragment)
        )
        if has_server(self.address) or not local:
            return None
        path = Path(url2pathname(parts.path) if parts.scheme else parts.path)
        return path if path.is_absolute() else None

    def _sender(self) -> Any:
        # a server is asked for the place; any other store is at `artifact_uri`
        if has_server(self.address):
            return open_client(self.address)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self.artifact_uri, tracking_uri=self.address.reveal())

    def _run_argument(self) -> list[str]:
        return [self.run_id] if has_server(self.address) else []


def _within(place: Path, folder: str | Path) -> Path:
    """A folder of a run's artifacts.

    Raises `OSError` if a link leads out of them: the store may have come with runs of somebody else.
    """
    inner = place / folder
    if leads_out(inner, place):
        raise OSError(f"{inner} is a link out of the artifacts of its run: nothing is written there")
    return inner


def _copy(file: Path, folder: Path) -> None:
    # MLflow does not list files with this prefix of its own: nobody reads half a file
    unfinished = folder / f".artifact.uploading.{file.name}"
    unfinished.unlink(missing_ok=True)  # a link would be followed
    try:
        shutil.copyfile(file, unfinished)
    except FileNotFoundError:  # the folder is made only if it is missing, which is seldom
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, unfinished)
    unfinished.replace(folder / file.name)
