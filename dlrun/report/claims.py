"""The claims and figures of a sweep's study. A study that raises an error costs no report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from dlrun.config import trust
from dlrun.report.overview import Overview
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.sweep_summary import describe_unended
from dlrun.studies.study import CaptionedFigure, Claim, Study

FILE = "claims.json"


def check(overview: Overview) -> list[Claim]:
    """Check the study's claims, and write `claims.json`.

    While jobs are missing or killed, none is decided, unless the selection was requested all the same.
    """
    if not overview.manifest.study:
        return []
    try:
        claims = list(_study(overview, overview.manifest.study).claims(overview.finished))
    # a study may be the user's, and raise anything
    except Exception as error:
        claims = [_failed(overview.manifest.study, error)]
    if overview.unended:
        requested = bool((overview.summary.selected or {}).get("without"))
        claims = [_on_some_jobs(claim, overview, requested=requested) for claim in claims]
    overview.sweep.report.mkdir(exist_ok=True)
    content = dumps([asdict(claim) for claim in claims], indent=1)
    write_atomically(overview.sweep.report / FILE, content.encode() + b"\n")
    return claims


def read(overview: Overview) -> list[Claim]:
    """The claims of the last `check`; none if their file is missing or damaged."""
    # not checked again: that may take long
    try:
        return [Claim(**claim) for claim in json.loads((overview.sweep.report / FILE).read_text())]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def own_figures(overview: Overview) -> Iterator[CaptionedFigure]:
    if overview.manifest.study and overview.finished:
        yield from _study(overview, overview.manifest.study).figures(overview.finished)


def _study(overview: Overview, config: dict[str, Any]) -> Study:
    from dlrun.config import instantiate  # imports torch, which a sweep without a study does not need here

    study: Study = instantiate.make(config, trusted=trust.trusted_names())
    return study


def _on_some_jobs(claim: Claim, overview: Overview, *, requested: bool) -> Claim:
    evidence = f"So far, for {describe_unended(overview.unended, len(overview.results))}: {claim.evidence}"
    return replace(claim, verdict=claim.verdict if requested else "undecided", evidence=evidence)


def _failed(config: dict[str, Any], error: Exception) -> Claim:
    message = f"The study `{config.get('_target_')}` failed: {type(error).__name__}: {error}"
    return Claim("The claims of the study.", "undecided", message)
