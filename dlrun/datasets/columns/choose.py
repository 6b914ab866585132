"""The columns of a table that are inputs, and those that cannot be without a word of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.datasets.columns.column import Column, Kind, is_number, of_rows, option, read
from dlrun.datasets.columns.doubts import (
    compact_date,
    leading_zero,
    names_the_rows,
    number_written_otherwise,
    taken_for_one,
)
from dlrun.datasets.columns.encode import Missing
from dlrun.errors import ConfigError, DataError, did_you_mean
from dlrun.terminal import output


@dataclass(frozen=True)
class Choice:
    """The inputs as the user has chosen them.

    Without `columns` they are all but those in `reserved`, which maps a column to its use, such as `target`.
    """

    columns: Sequence[str] | None = None
    leave_out: Sequence[str] = ()
    categories: Sequence[str] = ()
    dates: Sequence[str] = ()
    missing: Missing = "refuse"
    reserved: Mapping[str, str] = field(default_factory=dict)

    def names(self, known: Sequence[str]) -> list[str]:
        """The inputs among the `known` columns.

        Raises `ConfigError` for columns that do not exist, and for a target among the inputs.
        """
        for key, names in (
            ("columns", self.columns or ()),
            ("leave_out", self.leave_out),
            ("categories", self.categories),
            ("dates", self.dates),
        ):
            check_known(key, names, known)
        if twice := sorted({*self.categories} & {*self.dates}):
            raise ConfigError(f"dataset.categories and dataset.dates both name `{twice[0]}`. Leave it in one of them.")
        chosen = [name for name in self.columns or known if name not in self.leave_out]
        if self.columns is None:
            return [name for name in chosen if name not in self.reserved]
        for name in chosen:
            if self.reserved.get(name) in ("target", "split_column"):
                raise ConfigError(
                    f"dataset.columns has `{name}`, which is dataset.{self.reserved[name]}. Leave it out."
                )
        return chosen

    def kind(self, name: str) -> Kind | None:
        """What the user says that a column is."""
        return "category" if name in self.categories else "date" if name in self.dates else None


def check_known(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise `ConfigError` for a name that is no column."""
    for name in names:
        if name not in known:
            listed = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
            raise ConfigError(
                f"dataset.{key}: there is no column `{name}`.{did_you_mean(name, known)} The columns are: {listed}."
            )


def choose(cells: Mapping[str, Any], choice: Choice, declared: Mapping[str, Sequence[str]]) -> list[Column]:
    """The columns that are inputs.

    `declared` are values of categories that the file itself lists. Raises `DataError` for those that are no inputs as
    they are, all in one message: texts, dates, row numbers, constants, and missing values.
    """
    names = choice.names([*cells])
    if not names:
        raise ConfigError("dataset.columns: no column is left for the inputs.")
    found = [
        read(name, cells[name], kind=choice.kind(name), declared=() if name in choice.dates else declared.get(name, ()))
        for name in names
    ]
    problems = {column.name: problem for column in found if (problem := _problem(column, cells[column.name], choice))}
    if problems:
        raise DataError(_refusal(problems, found))
    if choice.missing == "refuse" and (gaps := [column for column in found if column.missing]):
        raise DataError(_gaps(gaps))
    for column in found:
        if column.name not in (choice.columns or ()) and (day := compact_date(column)):
            output.say(
                f"`{column.name}` is taken for numbers, and all look like days, as {day}. For days since 1970 type "
                f"{option('dates', [column.name])}."
            )
        if column.name not in (choice.columns or ()) and (code := leading_zero(column, cells[column.name])):
            output.say(
                f"`{column.name}` is taken for numbers, {code} for {float(code):g}. For codes type "
                f"{option('categories', [column.name])}."
            )
    return found


def _problem(column: Column, cells: Any, choice: Choice) -> str:
    """Why a column is no input as it is; empty if it is one."""
    rows, present = len(column.values), column.present
    if not len(present):
        return "has no value in any row"
    named = column.name in (*(choice.columns or ()), *choice.categories, *choice.dates)
    if not named and (number := number_written_otherwise(column.texts)):
        return f"has numbers written as `{number[:30]}`, not as 1234.5"
    if mixed := [text for text in column.texts if not is_number(text)]:
        rest = len(column.texts) - len(mixed)
        # a few words among numbers: to take each number for a category would be a guess
        if rest >= len(mixed) and rest > 1 and column.name not in choice.categories:
            return f"has numbers, and texts such as `{mixed[0][:30]}`"
    if column.kind == "text":
        return f"is text: {len(column.texts):,} different ones in {rows:,} rows, as `{column.texts[0][:30]}`"
    if column.kind == "date" and column.name not in choice.dates:
        return "holds dates"
    # whoever names a column has looked at it
    if named:
        return ""
    if bool((present == present[0]).all()):
        return f"has one value in all rows, `{column.texts[0] if column.texts else f'{float(present[0]):g}'}`"
    if number := taken_for_one(column, cells):
        return f"has whole numbers that float64 takes for one another, as {number}"
    return names_the_rows(column) or ""


def _refusal(problems: Mapping[str, str], found: Sequence[Column]) -> str:
    kinds = {column.name: column.kind for column in found if column.name in problems}
    lines = [f"  `{name}` {problem}" for name, problem in problems.items()]
    lines.append(f"Type {option('leave_out', [*problems])} to leave {'it' if len(problems) == 1 else 'them'} out.")
    if texts := [
        name
        for name, kind in kinds.items()
        if kind == "text" or any(part in problems[name] for part in ("and texts", "written as", "float64"))
    ]:
        lines.append(f"Texts that are categories: {option('categories', texts)}.")
    if dates := [name for name, kind in kinds.items() if kind == "date"]:
        lines.append(f"Dates as numbers, in days since 1970: {option('dates', dates)}.")
    if {"number", "category"} & {*kinds.values()}:
        lines.append("A column that you name in dataset.columns is taken all the same.")
    return "\n".join(["These columns are no inputs as they are:", *lines])


def _gaps(gaps: Sequence[Column]) -> str:
    listed = ", ".join(f"`{column.name}` in {of_rows(column.missing, len(column.values))}" for column in gaps[:8])
    more = f" and {len(gaps) - 8} more" if len(gaps) > 8 else ""
    return (
        f"Values are missing: {listed}{more}.\n"
        "Type dataset.missing=mean for the training mean in their place (of a category, the shares of its values), "
        "dataset.missing=indicator for that and a further input that says so, or "
        f"{option('leave_out', [column.name for column in gaps])} for the other columns alone."
    )
