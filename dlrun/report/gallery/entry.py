"""What the gallery shows of one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.studies.study import Claim

SCORES = ("", "seeds", "mean ± sd", "worst", "median", "best", "95 % interval of the mean")
"""The head of `Entry.scores`."""


@dataclass(frozen=True)
class Picture:
    """A figure with its caption.

    `place` is its path without an ending: `.svg` and `.png` are looked for.
    """

    place: Path
    caption: str


@dataclass(frozen=True)
class Entry:
    """A sweep, or the record of one.

    `scores` are rows of text under `SCORES`, of a sweep without claims. `whole` is False if jobs failed or are missing;
    `remark` says it, or why no newer sweep is shown.
    """

    name: str
    command: str
    question: str = ""
    section: str = ""
    claims: Sequence[Claim] = ()
    scores: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()
    started: float | None = None
    seconds: float | None = None
    jobs: int = 0
    setting: str = ""
    recorded: bool = False
    whole: bool = True
    remark: str = ""

    @property
    def empty(self) -> bool:
        """There is nothing to show but the command."""
        return not (self.claims or self.scores or self.pictures)

    @property
    def title(self) -> str:
        """The name in words.

        >>> Entry("weight_decay", "dlrun train +experiment=weight_decay").title
        'Weight decay'
        """
        words = self.name.replace("_", " ")
        return words[:1].upper() + words[1:]
