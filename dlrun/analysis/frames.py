"""What runs have logged as pandas tables, for a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.storage import journal

if TYPE_CHECKING:
    import pandas as pd


def curves_frame(path: Path) -> pd.DataFrame:
    """The points of a journal: a row a step, a column a metric, and `epoch` before them.

    A metric that was not logged at a step is NaN there. Of two points of a metric and step the later counts.
    """
    import pandas as pd  # a second

    rows: dict[int, dict[str, float]] = {}
    for line in journal.read(path)[0]:
        if "metrics" in line:
            row = rows.setdefault(line["step"], {"epoch": float(line.get("epoch", "nan"))})
            row.update({name: float(value) for name, value in line["metrics"].items()})
    names = list(dict.fromkeys(name for row in rows.values() for name in row)) or ["epoch"]
    table = pd.DataFrame(
        rows.values(), index=pd.Index(rows, name="step", dtype="int64"), columns=names, dtype="float64"
    )
    return table.sort_index()
