"""The training FLOP of runs among those of published models, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.terminal import output
from dlrun.terminal.format import counted


def draw_cost(rows: Sequence[Mapping[str, Any]], file: str) -> int:
    """Draw runs, given by their summaries, into `file`; returns the exit code.

    Raises `UserError` if none of them has counted its operations.
    """
    if Path(file).suffix not in (".png", ".svg"):
        raise UserError(f"--figure {file}: expected a file that ends with .png or .svg.")
    by_name: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if (flop := (row.get("cost") or {}).get("flop")) and row.get("started") is not None:
            by_name.setdefault(str(row.get("name")), []).append((float(row["started"]), float(flop)))
    found = sum(map(len, by_name.values()))
    if not found:
        raise UserError("None of these runs has counted its operations (`cost/flop`), so there is nothing to draw.")
    from dlrun.analysis.figures.style import save
    from dlrun.analysis.figures.training_cost import training_cost

    # the largest first, as they stand in the figure
    ordered = dict(sorted(by_name.items(), key=lambda named: -max(flop for _, flop in named[1])))
    save(training_cost(ordered), Path(file))
    few = f"; {counted(len(rows) - found, 'run')} without a count of operations left out" if found < len(rows) else ""
    output.say(f"  {file}: {counted(found, 'run')}{few}")
    return 0
