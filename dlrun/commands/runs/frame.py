"""The runs as a pandas table, for `dlrun.runs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrun.commands.runs.query import Query, select
from dlrun.commands.runs.rows import check_name, measured, value_of
from dlrun.storage.lookup import locate_sweep

if TYPE_CHECKING:
    import pandas as pd

FIRST = ("started", "name", "status", "seed", "steps", "train_seconds")
LAST = ("size", "folder")


def frame(
    references: Sequence[str],
    *,
    where: str | Sequence[str] = (),
    metric: str | Sequence[str] = (),
    last: int | None = None,
    sort: str | None = None,
    descending: bool = False,
) -> pd.DataFrame:
    """The runs that `dlrun runs` lists, a row each."""
    import pandas as pd  # a second

    metrics = [metric] if isinstance(metric, str) else [*metric]
    query = Query([where] if isinstance(where, str) else [*where], last, sort, descending, metrics)
    rows = select({reference: locate_sweep(reference) for reference in references}, query)
    for name in metrics:
        check_name(name, rows)
    names = metrics or list(dict.fromkeys(name for row in rows for name in measured(row)))
    columns = {name: [row.get(name) for row in rows] for name in FIRST}
    # NaN where a run has none; JSON has words for what is not finite
    columns |= {name: [float(v) if (v := value_of(row, name)) is not None else None for row in rows] for name in names}
    columns |= {name: [row.get(name) for row in rows] for name in LAST}
    table = pd.DataFrame(columns, index=pd.Index([row["id"] for row in rows], name="id"))
    # in UTC: which zone a reader is in, is for him to say
    table["started"] = pd.to_datetime(table["started"], unit="s", utc=True)
    return table.astype(dict.fromkeys(names, "float64") | dict.fromkeys(("seed", "steps", "size"), "Int64"))
