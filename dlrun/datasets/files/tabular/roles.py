"""Which column of a table of texts is the label, the split and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlrun.datasets.files.tabular.text_table import TextTable
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.errors import ConfigError, DataError, did_you_mean
from dlrun.terminal import output


def choose_columns(table: TextTable, roles: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each of the `roles`, which map to their usual names; a `split` need not be there.

    One that is not `given` is found if a single column has a usual name of it, or is the only one left. Raises
    `DataError` that says what to type, `ConfigError` for a role that is none.
    """
    listed = ", ".join(table.header)
    for role, name in given.items():
        if role not in roles:
            raise ConfigError(
                f"dataset.columns has no `{role}`.{did_you_mean(role, roles)} Valid are {', '.join(roles)}."
            )
        if name not in table.header:
            raise DataError(f"{table.path} has no column `{name}`.{did_you_mean(name, table.header)} It has {listed}.")
    chosen = dict(given)
    for role in [role for role in roles if role not in given]:
        found = [name for name in _left(table, chosen) if name.lower() in roles[role]]
        if role == "split":  # a column of that name may be of something else
            found = [name for name in found if _is_of_splits(table, name)][:1]
        if len(found) == 1:
            chosen[role] = found[0]
    left = _left(table, chosen)
    missing = [role for role in roles if role not in chosen and role != "split"]
    if len(missing) == 1 == len(left):
        chosen[missing[0]] = left[0]
    elif missing:
        likely = [name for name in left if name.lower() in roles[missing[0]]]
        raise DataError(
            f"{table.path} has the columns {listed}: which one is the {missing[0]}? Type for example "
            f"'dataset.columns={{{missing[0]}: {(likely or left or ['NAME'])[0]}}}'."
        )
    return chosen


def _is_of_splits(table: TextTable, name: str) -> bool:
    cells = {*table.column(name)}
    others = sorted(cell for cell in cells if cell.lower() not in SPELLINGS)
    if others and len(others) < len(cells):
        output.warn(
            f"{table.path}: the column `{name}` is not taken for one of splits, which are train, val and test: it has "
            f"{', '.join(map(repr, others[:3]))}."
        )
    return not others


def _left(table: TextTable, chosen: Mapping[str, str]) -> list[str]:
    return [name for name in table.header if name not in chosen.values()]
