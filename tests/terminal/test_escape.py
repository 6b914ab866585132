"""Texts of others: no control character reaches a terminal, no formula a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dlrun.terminal import output
from dlrun.terminal.escape import csv_cell, visible
from dlrun.terminal.format import table
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
EVIL = "x\x1b]0;pwned\x07\x9b2J\u202e\rq"


def test_control_characters_are_written_out() -> None:
    assert visible(EVIL) == r"x\x1b]0;pwned\x07\x9b2J\u202e\x0dq"
    assert visible("a\tb\nü漢👩‍👩") == "a\tb\nü漢👩‍👩"
    assert visible("a\rb", keep="\r") == "a\rb"
    assert visible("\udcff") == r"\udcff"
    assert table([["a\nb", "\x1b"]]) == r"  a\nb  \x1b"


def test_whatever_is_printed_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(EVIL)
    output.warn(EVIL)
    output.log(EVIL)
    try:
        raise RuntimeError(EVIL)
    except RuntimeError as error:
        output.show_traceback(error)
    shown = capsys.readouterr()
    for text in shown:
        assert EVIL not in text and "\x1b" not in text and r"\x1b]0;pwned" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", f"nosuch={EVIL}"),
        ("train", f"tracking.experiment='{EVIL}'", "nosuch=1"),
        ("train", f"--{EVIL}"),
        ("runs", f"--{EVIL}"),
        ("runs", "--last", EVIL),
        ("test", EVIL),
        (EVIL,),
    ],
)
def test_what_was_typed_is_repeated_without_control_characters(call: Call, arguments: tuple[str, ...]) -> None:
    refused = call(*arguments)
    refuses(refused)
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*refused.out, *refused.err}, refused.err


def test_no_text_is_a_formula() -> None:
    for text in ("=HYPERLINK(1)", "@SUM(1)", "+1+2", "-1+2", "\t=1", "\r=1"):
        assert csv_cell(text).startswith("'")
    for value in (-0.5, 3, None, "-0.5", "+1e-3", "-inf", "lr=0.1", ""):
        assert csv_cell(value) == value
