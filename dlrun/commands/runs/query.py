"""The runs that were asked for, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dlrun.commands.runs import sweeps
from dlrun.commands.runs.conditions import fulfils, parse, tell_units
from dlrun.commands.runs.order import higher_is_better, ranking_metric, sort_by
from dlrun.commands.runs.rows import row_of
from dlrun.errors import UserError
from dlrun.storage.lookup import found_runs, in_order, locate, read_each
from dlrun.storage.sweepdir import SweepDir


@dataclass(frozen=True)
class Query:
    """Conditions on runs, and their order: the oldest first, if no other is given."""

    where: Sequence[str] = ()
    last: int | None = None
    sort: str | None = None
    descending: bool = False
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise UserError(f"--last {self.last}: expected at least 1.")

    @property
    def narrowing(self) -> list[str]:
        """The options given."""
        return [f"--{name}" for name in ("where", "last", "sort") if getattr(self, name)]


def select(named: Mapping[str, SweepDir | None], query: Query) -> list[dict[str, Any]]:
    """The rows of the runs that are `named`, or of all.

    A name maps to its sweep, if it is of one. Raises `UserError` for a run, a condition or a key that is none.
    """
    conditions = [parse(text) for text in query.where]
    found = [
        sweeps.runs_of(sweep) if sweep else [locate(reference, what="run or sweep")]
        for reference, sweep in named.items()
    ]
    # one that is named must be whole
    rows = [*map(row_of, chain(*found))] if named else _all_rows()
    for condition in conditions:
        tell_units(rows, condition)
        rows = [row for row in rows if fulfils(row, condition, rows)]
    if query.last is not None:  # before sorting: the newest
        rows = rows[-query.last :]
    if query.sort == "best" and rows:
        name = ranking_metric(rows, [*query.metrics])
        return sort_by(rows, name, descending=higher_is_better(rows, name))
    return sort_by(rows, query.sort, descending=query.descending) if query.sort and rows else rows


def _all_rows() -> list[dict[str, Any]]:
    """The rows of all runs, the oldest first; each summary is read once."""
    rows = dict(read_each(found_runs(), row_of))
    return [rows[run] for run, _ in in_order((run, row.get("started")) for run, row in rows.items())]
