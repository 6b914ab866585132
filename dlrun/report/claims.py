"""A study's claims and figures, from the finished runs of its sweep. A study that fails costs no report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dlrun.config import trust
from dlrun.report.overview import Overview
from dlrun.storage.rundir import write_atomically
from dlrun.studies.study import Claim, Finding, Study

FILE = "claims.json"


def checked(seen: Overview) -> list[Claim]:
    """Return the claims of the sweep's study, checked now, and keep them beside the report; none without a study."""
    if not seen.what.study:
        return []
    try:
        claims = list(_study(seen, seen.what.study).claims(seen.finished))
    except Exception as error:
        claims = [_failed(seen.what.study, error)]
    seen.sweep.report.mkdir(exist_ok=True)
    content = json.dumps([asdict(claim) for claim in claims], indent=1)
    write_atomically(seen.sweep.report / FILE, content.encode() + b"\n")
    return claims


def kept(seen: Overview) -> list[Claim]:
    """Return the claims as they were checked for the report: checking may take a study a while."""
    file = seen.sweep.report / FILE
    return [Claim(**claim) for claim in json.loads(file.read_text())] if file.exists() else []


def findings(seen: Overview) -> Iterator[Finding]:
    """Yield the figures that the sweep's study is known for."""
    if seen.what.study and seen.finished:
        yield from _study(seen, seen.what.study).figures(seen.finished)


def _study(seen: Overview, config: dict[str, Any]) -> Study:
    from dlrun.config import instantiate  # torch

    study: Study = instantiate.make(config, trusted=trust.granted())
    return study


def _failed(config: dict[str, Any], error: Exception) -> Claim:
    told = f"the study {config.get('_target_')} failed: {type(error).__name__}: {error}"
    return Claim("what the study claims", "undecided", told)
