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
from dlrun.runs.parts import make_dataset
from dlrun.storage import lookup
from dlrun.terminal import output


def look(name: str, overrides: Sequence[str]) -> int:
    """Show the data set `name` with the given values, and draw it."""
    return hydra_main.inspect([f"dataset={name}", *overrides], prog="dlrun data", use=_show)


def _show(config: DictConfig) -> int:
    data = make_dataset(check_config(config))
    seen = see(data)
    for line in lines(data, seen):
        output.say(line)
    if figure := draw(data, seen):
        path = save(figure, lookup.outputs() / "data" / f"{_file_name(data.name)}.png")
        output.say(f"  {'figure':<10}{_relative(path)}")
    return 0


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) or "data"


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
