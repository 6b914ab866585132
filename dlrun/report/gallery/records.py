"""Records of sweeps, small enough to be kept in a repository: NAME.json, and its figures as PNG."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlrun.errors import DamagedFile
from dlrun.report.gallery.entry import Entry, Picture
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.opening import read_json
from dlrun.storage.files.record import misfit
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.lookup import read_each
from dlrun.studies.study import Claim

ADVICE = "Delete it, or put a copy of it back."


@dataclass(frozen=True)
class Record:
    """The content of NAME.json; what it lacks of an entry is said by the experiment's file.

    Each of `claims` has a text, a verdict and evidence, each of `pictures` a file and a caption.
    """

    name: str
    command: str
    started: float | None
    seconds: float | None
    jobs: int
    setting: str
    claims: Sequence[Mapping[str, str]] = ()
    scores: Sequence[Sequence[str]] = ()
    pictures: Sequence[Mapping[str, str]] = ()


def record(entry: Entry, folder: Path) -> Path:
    """Write an entry's record, and copy its figures; returns the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for picture in entry.pictures:
        file = folder / f"{entry.name}-{picture.place.name}.png"
        shutil.copyfile(picture.place.with_name(f"{picture.place.name}.png"), file)
        pictures.append({"file": file.name, "caption": picture.caption})
    found = Record(
        name=entry.name,
        command=entry.command,
        started=entry.started,
        seconds=entry.seconds,
        jobs=entry.jobs,
        setting=entry.setting,
        claims=[asdict(claim) for claim in entry.claims],
        scores=entry.scores,
        pictures=pictures,
    )
    path = folder / f"{entry.name}.json"
    write_atomically(path, dumps(asdict(found), indent=1).encode() + b"\n")
    return path


def read_records(folder: Path) -> dict[str, Entry]:
    """The records of a folder by the name of their sweep; a damaged one is left out, with a line."""
    return {entry.name: entry for _, entry in read_each(sorted(folder.glob("*.json")), _read)}


def _read(path: Path) -> Entry:
    content = read_json(path, advice=ADVICE)
    if found := misfit(content, Record):
        raise DamagedFile(path, found, ADVICE)
    record = Record(**content)
    try:
        claims = [Claim(**claim) for claim in record.claims]  # type: ignore[arg-type]
        pictures = [Picture((path.parent / p["file"]).with_suffix(""), p["caption"]) for p in record.pictures]
    except (TypeError, KeyError) as error:
        raise DamagedFile(path, f"it is no record of a sweep ({error})", ADVICE) from None
    return Entry(
        name=record.name,
        command=record.command,
        claims=claims,
        scores=record.scores,
        pictures=pictures,
        started=record.started,
        seconds=record.seconds,
        jobs=record.jobs,
        setting=record.setting,
        recorded=True,
    )
