"""The conditions of `dlrun runs --where`."""

from __future__ import annotations

import operator
import re
from typing import Any

from dlrun.commands.runs.rows import check_name, value_of
from dlrun.errors import UserError
from dlrun.storage.summary import Summary
from dlrun.terminal import output

# the longer signs first: `<` would match the beginning of `<=`
CONDITION = re.compile(r"([\w./]+)\s*(<=|>=|!=|==?|<|>)\s*([^<>=!].*)")
COMPARE = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
Condition = tuple[str, str, str]
"""A column or metric, a comparison, and a value."""


def parse(text: str) -> Condition:
    match = CONDITION.fullmatch(text.strip())
    if not match:
        raise UserError(f"--where `{text}` is no condition. Type for example `--where status=finished`.")
    return match[1], match[2], match[3].strip()


def fulfils(row: dict[str, Any], condition: Condition, rows: list[dict[str, Any]]) -> bool:
    name, sign, given = condition
    compare = COMPARE[sign]
    check_name(name, rows)
    value = value_of(row, name)
    if value is None:  # a run that has not come to it fulfils no condition, `!=` neither
        return False
    # numbers compare as numbers, all else as text
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return bool(compare(value, float(given)))
        except ValueError:
            raise UserError(f"--where `{name}{sign}{given}`: {name} is a number, and `{given}` is not.") from None
    return bool(compare(str(value), given))


def tell_units(rows: list[dict[str, Any]], condition: Condition) -> None:
    """Say it if a metric is not one quantity in all these runs."""
    name = condition[0]
    units = {Summary(row).unit(name) for row in rows if name in (row.get("metrics") or {})}
    if len(units) > 1:
        output.warn(f"--where {''.join(condition)}: {name} is not the same quantity in all these runs.")
