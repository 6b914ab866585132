"""What a report contains, in its order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from dlrun.report import sentences, tables
from dlrun.report.document import Block, Code, Heading, Paragraph, Picture, Table
from dlrun.report.overview import Overview
from dlrun.studies.study import Claim
from dlrun.terminal.format import duration


def contents(
    seen: Overview, claims: Sequence[Claim], pictures: Sequence[Picture], own: Sequence[Picture]
) -> list[Block]:
    """Return the page: what was asked, what was found, how sure that is, and the figures.

    `own` are the figures of the sweep's study, `pictures` those that any sweep gets.
    """
    return [
        Heading(f"{seen.what.name}: {len(seen.results)} jobs", 1),
        *_asked(seen),
        *_claims(claims),
        *own,
        *_found(seen),
        *_tested(seen),
        *_figures(pictures),
        *_failures(seen),
        *_setting(seen),
    ]


def _asked(seen: Overview) -> Iterator[Block]:
    when = datetime.fromtimestamp(seen.what.created).strftime("%Y-%m-%d %H:%M")
    yield Code(seen.what.command)
    took = seen.summary.get("seconds")
    ended = f" It took {duration(took)}." if took else ""
    yield Paragraph(f"Begun {when}. {sentences.counted(seen)}{ended}")
    if seen.what.swept:
        yield tables.variables(seen)


def _claims(claims: Sequence[Claim]) -> Iterator[Block]:
    if claims:
        yield Heading("Claims")
        yield Table(
            ["", "claim", "evidence"],
            [[claim.verdict, claim.text, claim.evidence] for claim in claims],
            words=True,
        )


def _found(seen: Overview) -> Iterator[Block]:
    if not seen.finished:
        yield Paragraph("No run has finished, so there is nothing to compare yet.")
        return
    yield Heading("Groups" if len(seen.groups) > 1 else "Over the seeds")
    yield Paragraph(sentences.chosen(seen))
    yield tables.ranking(seen)
    if len(seen.groups) > tables.LONGEST:
        yield Paragraph(f"The {len(seen.groups) - tables.LONGEST} groups that are not shown are in runs.csv.")
    for told in (sentences.lead(seen), sentences.bias(seen), sentences.intervals(seen)):
        if told:
            yield Paragraph(told)
    across = tables.splits(seen)
    if across:
        yield Heading("On each split", 3)
        yield across


def _tested(seen: Overview) -> Iterator[Block]:
    yield Heading("The test split")
    yield Paragraph(sentences.read(seen))
    group = seen.selected or (seen.groups[0] if len(seen.groups) == 1 else None)
    table = tables.tested(seen, group) if group else None
    if group and table:
        if len(seen.groups) > 1:
            yield Paragraph(f"The selected configuration, {group.label}:")
        yield table


def _figures(pictures: Sequence[Picture]) -> Iterator[Block]:
    if pictures:
        yield Heading("Figures")
        yield from pictures


def _failures(seen: Overview) -> Iterator[Block]:
    left = [result for result in seen.results if result.status not in ("finished", "pruned")]
    if left:
        yield Heading("Jobs that did not finish")
        yield tables.failures(left)
        if any(result.status in ("failed", "killed", "missing") for result in left):
            again = " --retry-failed" if any(result.status == "failed" for result in left) else ""
            yield Paragraph("To run them:")
            yield Code(f"dlrun resume {seen.sweep.id}{again}")


def _setting(seen: Overview) -> Iterator[Block]:
    first = next((result.summary for result in seen.finished), None)
    if first is None:
        return
    data, versions = first.get("data") or {}, first.get("versions") or {}
    sizes = ", ".join(f"{data[name]} {name}" for name in ("train", "validation", "test") if name in data)
    fingerprints = {(r.summary.get("data") or {}).get("fingerprint") for r in seen.finished}
    same = (
        f"fingerprint {str(data.get('fingerprint'))[:12]}" if len(fingerprints) == 1 else f"{len(fingerprints)} draws"
    )
    seconds = sum(result.summary.get("train_seconds") or 0.0 for result in seen.finished)
    rows = [
        ["data", f"{data.get('name', '')}: {sizes} ({same})"],
        ["device", f"{first.get('device_name', first.get('device', ''))}, {first.get('precision', '')}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
        ["training", f"{duration(seconds)} in all runs together"],
        ["definition", seen.what.definition[:12]],
        ["folder", str(seen.sweep.path)],
    ]
    yield Heading("Setting")
    yield Table(["", "of the first finished run"], rows, words=True)
