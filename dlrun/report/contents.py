"""The contents of a report, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dlrun.report import known_samples, selected, sentences, tables
from dlrun.report.document import Block, Code, Heading, Image, Paragraph, Table
from dlrun.report.overview import Overview
from dlrun.storage.rundir import outputs_above
from dlrun.storage.summary import split_sizes
from dlrun.studies.study import Claim
from dlrun.terminal.format import counted, duration, minute
from dlrun.tracking.content.cost import describe_total


def contents(
    overview: Overview, claims: Sequence[Claim], figures: Mapping[str, Sequence[Image]], own: Sequence[Image]
) -> list[Block]:
    """The page of a sweep, as blocks.

    Order: command and counts, claims and figures of the study (`own`), groups, test split, `figures` of every sweep by
    stratum, failures, setting. A sweep over several data sets begins with a row for each.
    """
    return [
        Heading(f"{overview.manifest.name}: {counted(len(overview.results), 'job')}", 1),
        *_command(overview),
        *_claims(claims),
        *own,
        *_strata(overview),
        *(block for part in overview.strata for block in _part(part, figures.get(part.label, ()))),
        *_failures(overview),
        *_setting(overview),
    ]


def _command(overview: Overview) -> Iterator[Block]:
    when = minute(overview.manifest.created)
    yield Code(overview.manifest.command)
    took = overview.summary.seconds
    ended = f" It took {duration(took)}." if took else ""
    yield Paragraph(f"Started {when}. {sentences.job_counts(overview)}{ended}")
    if overview.manifest.swept:
        yield tables.variables(overview)


def _claims(claims: Sequence[Claim]) -> Iterator[Block]:
    if claims:
        yield Heading("Claims")
        yield Table(
            ["", "claim", "evidence"],
            [[claim.verdict, claim.text, claim.evidence] for claim in claims],
            words=True,
        )


def _strata(overview: Overview) -> Iterator[Block]:
    if len(overview.strata) > 1:
        yield Heading("Data sets")
        yield Paragraph(
            "Values of different validation samples cannot be ranked, so a configuration is selected, and tested, for "
            "each of these by itself."
        )
        yield tables.by_stratum(overview)


def _part(part: Overview, figures: Sequence[Image]) -> Iterator[Block]:
    blocks = [*_group_tables(part), *_test_split(part), *_figures(figures)]
    if part.label:
        yield Heading(part.label)
        blocks = [Heading(b.text, b.level + 1) if isinstance(b, Heading) else b for b in blocks]
    yield from blocks


def _group_tables(overview: Overview) -> Iterator[Block]:
    if not overview.finished:
        yield Paragraph("No run has finished, so there is nothing to compare yet.")
        return
    yield Heading("Groups" if len(overview.groups) > 1 else f"Over {_repetitions(overview)}")
    yield Paragraph(selected.selection(overview))
    yield tables.ranking(overview)
    if len(overview.groups) > tables.MAX_GROUPS:
        yield Paragraph(f"{len(overview.groups) - tables.MAX_GROUPS} more groups are in runs.csv.")
    for sentence in (sentences.lead(overview), selected.selection_bias(overview), sentences.interval_note(overview)):
        if sentence:
            yield Paragraph(sentence)
    across = tables.splits(overview)
    if across:
        yield Heading("On each split", 3)
        yield across


def _repetitions(overview: Overview) -> str:
    words = overview.manifest.repetitions
    return f"{overview.groups[0].size} folds" if words == "folds" and overview.groups else f"the {words}"


def _test_split(overview: Overview) -> Iterator[Block]:
    yield Heading("The test split")
    yield Paragraph(selected.describe_reads(overview))
    if known := known_samples.describe(overview):
        yield Paragraph(known)
    # without a choice the only group is the result
    group = overview.selected or (overview.groups[0] if len(overview.groups) == 1 else None)
    table = tables.test_scores(overview, group) if group else None
    if group and table:
        if len(overview.groups) > 1:
            yield Paragraph(f"The selected configuration, `{group.label}`:")
        yield table


def _figures(figures: Sequence[Image]) -> Iterator[Block]:
    if figures:
        yield Heading("Figures")
        yield from figures


def _failures(overview: Overview) -> Iterator[Block]:
    # a search prunes on purpose: pruned jobs are no failures
    left = [result for result in overview.results if result.status not in ("finished", "pruned")]
    if left:
        yield Heading("Jobs that did not finish")
        yield tables.failures(left)
        if any(result.status in ("failed", "killed", "missing", "damaged") for result in left):
            again = " --retry-failed" if any(result.status == "failed" for result in left) else ""
            yield Paragraph("To run them:")
            yield Code(f"dlrun resume {overview.sweep.id}{again}")


def _setting(overview: Overview) -> Iterator[Block]:
    first = next((result.summary for result in overview.finished), None)
    if first is None:
        return
    versions = first.versions
    seconds = sum(result.summary.train_seconds or 0.0 for result in overview.finished)
    rows = [
        *([f"data {part.label}".strip(), _data(part)] for part in overview.strata if part.finished),
        ["device", f"{first.device_name or first.device or ''}, {first.precision or ''}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
        ["training", f"{duration(seconds)} in all runs"],
        *([["cost", cost]] if (cost := describe_total(r.summary for r in overview.finished)) else []),
        *([["differing", sentences.code(overview)]] if first.identity_parts else []),
        ["definition", overview.manifest.definition[:12]],
        ["folder", _within_outputs(overview.sweep.path)],
    ]
    yield Heading("Setting")
    yield Table(["", "of the first finished run"], rows, words=True)


def _data(overview: Overview) -> str:
    data = overview.finished[0].summary.data
    sizes = ", ".join(f"{size} {name}" for name, size in split_sizes(data).items())
    # more than one if the data depend on the seed
    fingerprints = {r.summary.data.get("fingerprint") for r in overview.finished}
    same = (
        f"fingerprint {str(data.get('fingerprint'))[:12]}"
        if len(fingerprints) == 1
        else f"{len(fingerprints)} different fingerprints"
    )
    return f"{data.get('name', '')}: {sizes} ({same})"


def _within_outputs(path: Path) -> str:
    # an outputs folder may be moved, and its reports with it
    outputs = outputs_above(path)
    return str(path.relative_to(outputs) if outputs else path)
