"""Assertions on messages: the facts that they state, not their wording."""

from __future__ import annotations

from typing import Protocol


class Result(Protocol):
    """An exit code, and the text of both streams."""

    @property
    def code(self) -> int: ...
    @property
    def out(self) -> str: ...
    @property
    def err(self) -> str: ...


def says(text: str, *facts: str) -> None:
    """Assert that a text states each fact: a key, a value, a path, a command to type.

    Blanks and line ends count as one blank.
    """
    __tracebackhide__ = True
    words = " ".join(text.split())
    missing = [fact for fact in facts if " ".join(fact.split()) not in words]
    assert not missing, f"{missing} missing in:\n{text}"


def refuses(called: Result, *facts: str) -> None:
    """Assert that a call of dlrun was a user's mistake: exit code 2, one message with these facts, no traceback."""
    __tracebackhide__ = True
    assert called.code == 2, f"exit code {called.code}:\n{called.out}{called.err}"
    assert "Traceback" not in called.err, called.err
    says(called.err, *facts)
