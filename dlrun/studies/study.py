"""The contract of a study: claims about the runs of a sweep, and the figures that show them."""

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
    """A statement about the runs, with verdict and evidence."""

    text: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure with its caption.

    `name` is its file's, without an ending.
    """

    name: str
    figure: Figure
    caption: str


class Study(Protocol):
    """An experiment names it as `study._target_`, with its arguments.

    Both methods get the finished runs of the sweep and nothing else: a test gives them runs that violate a claim.
    """

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        """Check each claim against the runs."""

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        """Draw the figures of the study."""


def judge(text: str, holds: bool | None, evidence: str) -> Claim:
    """Make a claim; `holds=None` if the runs cannot decide it.

    >>> judge("the training error never rises", None, "one degree only").verdict
    'undecided'
    """
    verdict: Verdict = "undecided" if holds is None else "held" if holds else "not held"
    return Claim(text, verdict, evidence)
