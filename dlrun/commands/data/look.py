"""`dlrun data NAME --look`: a data set, loaded as a run would load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from dlrun.analysis.figures.style import save
from dlrun.commands.data.lines import lines, see
from dlrun.commands.data.pictures import draw
from dlrun.config import hydra_main
from dlrun.config.check import check_config
from dlrun.errors import UserError
from dlrun.runs.parts import make_dataset
from dlrun.storage import lookup
from dlrun.terminal import output
from dlrun.types import Data

KINDS = {
    **dict.fromkeys((".npz", ".npy", ".safetensors", ".h5", ".hdf5"), "numpy"),
    ".txt": "text",
    ".jsonl": "text_classification",
}
"""The data set that reads a file, by its ending; others are tables."""


def look(name: str, overrides: Sequence[str]) -> int:
    """Show the data set `name` with the given values, and draw it. Raises `UserError` for a file's name."""
    path = Path(name)
    # a word alone is a choice, whatever else has its name
    if path.exists() and (path.suffix or len(path.parts) > 1):
        more = {"table": " dataset.target=COLUMN", "numpy": " dataset.inputs=NAME dataset.targets=NAME"}
        kind = "images" if path.is_dir() else KINDS.get(path.suffix, "table")
        raise UserError(
            f"`{name}` is a {'folder' if path.is_dir() else 'file'}; expected the name of a data set. Type for example "
            f"`dlrun data {kind} dataset.path={name}{more.get(kind, '')} --look`."
        )
    return hydra_main.inspect([f"dataset={name}", *overrides], prog="dlrun data", use=_show)


def _show(config: DictConfig) -> int:
    data = make_dataset(check_config(config))
    seen = see(data)
    for line in lines(data, seen):
        output.say(line)
    if figure := draw(data, seen):
        path = save(figure, lookup.outputs() / "data" / f"{_file_name(_title(data))}.png")
        output.say(f"  {'figure':<10}{_relative(path)}")
    return 0


def _title(data: Data) -> str:
    """The data set's name, and of files of the user's own theirs."""
    path = data.notes.get("path")
    return f"{data.name}-{Path(path).stem}" if isinstance(path, str) else data.name


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) or "data"


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
