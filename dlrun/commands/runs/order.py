"""The order of `dlrun runs --sort`."""

from __future__ import annotations

from math import isnan
from typing import Any

from dlrun.commands.runs.rows import check_name, value_of
from dlrun.errors import UserError
from dlrun.storage.summary import Summary


def sort_by(rows: list[dict[str, Any]], name: str, *, descending: bool) -> list[dict[str, Any]]:
    check_name(name, rows)
    have = [row for row in rows if value_of(row, name) is not None]
    if any(isinstance(value_of(row, name), dict | list) for row in have):
        raise UserError(f"--sort {name}: it is neither a number nor text. Type for example `--sort val/loss`.")
    if len({isinstance(value_of(row, name), str) for row in have}) > 1:
        raise UserError(f"--sort {name}: of some runs it is a number, of others text.")
    # runs without it come last, in either direction, and so do those where it is no number
    last = [row for row in rows if value_of(row, name) is None or _is_nan(value_of(row, name))]
    have = [row for row in have if not _is_nan(value_of(row, name))]
    return sorted(have, key=lambda row: value_of(row, name), reverse=descending) + last


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and isnan(value)


def ranking_metric(rows: list[dict[str, Any]], given: list[str] | None) -> str:
    """The metric to rank runs by: the one given, else the one that selected the weights of all."""
    monitors = {row["selected_by"] for row in rows if row.get("selected_by")}
    names = given or sorted(monitors)
    if any(name.startswith("test/") for name in names):
        raise UserError(
            f"--sort best: what is best is not decided by the test split. Type for example --metric val/loss; "
            f"`--sort {names[0]}` sorts the numbers all the same."
        )
    if len(names) == 1:
        return names[0]
    found = f" They were selected by {', '.join(names)}." if names else ""
    raise UserError(f"--sort best: by which metric?{found} Add for example `--metric val/loss`.")


def higher_is_better(rows: list[dict[str, Any]], name: str) -> bool:
    """Raises `UserError` if nobody says it, or if the values are not of one unit and the same samples."""
    summaries = [Summary(row) for row in rows if name in (row.get("metrics") or {})]
    known = {summary.higher_is_better(name) for summary in summaries}
    if len(known) != 1 or None in known:
        raise UserError(
            f"--sort best: nobody says whether higher or lower values of {name} are better. Type `--sort {name}`, and "
            f"perhaps `--descending`."
        )
    if len({summary.unit(name) for summary in summaries}) > 1 or len({s.samples(name) for s in summaries}) > 1:
        raise UserError(
            f"--sort best: {name} is not the same quantity in all these runs, or was measured on other samples. Name "
            f"runs that can be compared, or narrow them with --where; `--sort {name}` sorts the numbers all the same."
        )
    return bool(known.pop())
