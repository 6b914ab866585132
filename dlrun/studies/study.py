"""What a study is: claims about the runs of a sweep, and the figures that show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from dlrun.storage.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["held", "not held", "undecided"]


@dataclass(frozen=True)
class Claim:
    """A statement about the runs, whether it held, and the numbers behind that, as a person reads them."""

    text: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure of a study: its file's name without an ending, and what it shows in a sentence."""

    name: str
    figure: Figure
    caption: str


class Study(Protocol):
    """What an experiment names as `study._target_`; its arguments are the study's own.

    Both methods get the finished runs of the sweep and nothing else, so that a claim can be tested on
    runs that violate it.
    """

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        """Return what was claimed, checked against the runs."""

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        """Yield the figures that the study is known for."""


def judge(text: str, holds: bool | None, evidence: str) -> Claim:
    """Return a claim; `holds` is None where the runs cannot decide it.

    >>> judge("the training error never rises", None, "one degree only").verdict
    'undecided'
    """
    verdict: Verdict = "undecided" if holds is None else "held" if holds else "not held"
    return Claim(text, verdict, evidence)
