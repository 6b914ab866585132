"""The sentences on a sweep's selection, and on who has read the test split."""

from __future__ import annotations

from dlrun.report import known_samples
from dlrun.report.overview import Overview
from dlrun.storage.read_counts import Reads, reads_for
from dlrun.storage.sweep_summary import Selection, compare_means, describe_request, describe_unended
from dlrun.terminal.format import counted


def selection(overview: Overview) -> str:
    """The rule of the selection, and what departed from it."""
    chosen, better = overview.summary.selected, "highest" if overview.manifest.higher_is_better else "lowest"
    early = "" if chosen or not overview.unended else not_yet(overview)
    if len(overview.groups) == 1:
        word = overview.manifest.repetition
        only = f"Only the {f'{word}s vary' if _splits(overview) else f'{word} varies'}, so nothing was selected."
        return " ".join(filter(None, [only, _splits(overview), early or departures(overview)]))
    order = f"Groups are ordered by mean {overview.metric}, the {better} first."
    if overview.in_order:
        order = "Without a validation split nothing is ranked: the groups are in the order of the sweep."
    if overview.selected is None or chosen is None:
        return f"{early or 'No configuration was selected.'} {order}"
    seeds = (
        f" over the {overview.manifest.repetitions}" if any(len(group.results) > 1 for group in overview.groups) else ""
    )
    mean = f"the {better} mean {overview.manifest.monitor}{seeds}"
    rule = f"Selected: the group with {mean}, among the groups whose runs all finished. {_splits(overview)}".strip()
    if overview.summary.selected_now:
        rule = f"Selected: `{chosen.get('label')}`."
        how = f"dlrun report {overview.sweep.id} --select --force"
        return f"{rule} {departures(overview)} To select it all the same and read the test split again: `{how}`."
    return f"{rule} {departures(overview)}".strip()


def _splits(overview: Overview) -> str:
    """A sentence on repetitions over splits or folds; else empty."""
    swept = overview.manifest.swept
    if "dataset.fold" in swept and "dataset.split_seed" not in swept:
        folds = max(group.size for group in overview.groups) if overview.manifest.repetition == "fold" else 0
        over = f": numbers are over {folds} folds" if folds else ""
        best = any(result.summary.selected_by for result in overview.finished)
        chosen = " Each run's weights were chosen on its own fold, so validation is slightly too good." if best else ""
        return f"Folds (dataset.fold) are repetitions, as seeds are{over}.{chosen}"
    if "dataset.split_seed" not in swept:
        return ""
    tests = {result.summary.samples("test/") for result in overview.finished}
    shared = (
        " Their test samples differ too: those of one split may be validation samples of another, so the test numbers "
        "are not sealed from the selection."
        if len(tests) > 1 and len(overview.groups) > 1
        else ""
    )
    return f"Splits (dataset.split_seed) are repetitions, as seeds are.{shared}"


def departures(overview: Overview) -> str:
    """What departed from the rule of the selection; else empty."""
    chosen, now = overview.summary.selected, overview.summary.selected_now
    if chosen is None:
        return ""
    words = [_marks(chosen)]
    if now:
        words.append(
            f"The test split was read for it, so this selection is final. Now `{now.get('label')}` would be selected "
            f"({compare_means(chosen, now)})."
        )
    return " ".join(filter(None, words))


def not_yet(overview: Overview) -> str:
    """The jobs that the selection waits for, and what to type."""
    sweep = overview.sweep.id
    return (
        f"{describe_unended(overview.unended, len(overview.results))}: nothing is selected yet. `dlrun resume {sweep}` "
        f"goes on; `dlrun report {sweep} --select` selects among the jobs that have finished."
    )


def selection_bias(overview: Overview) -> str:
    """The bias of the selected group's validation numbers."""
    chosen = overview.summary.selected
    if overview.selected is None or chosen is None or len(overview.groups) == 1 or overview.summary.selected_now:
        return ""
    # the best of several noisy means tends to look better than it is; so would test numbers that were seen before
    sealed = overview.manifest.test == "final" and not _others_read(overview) and not chosen.get("earlier")
    # of other splits, or by their first weights, the runs may know samples of the test
    unseen = "dataset.split_seed" not in overview.manifest.swept and not known_samples.describe(overview)
    test = " Its test numbers are not." if sealed and unseen and not chosen.get("reads_before") else ""
    return (
        f"The validation numbers of the selected group are the best of {len(overview.groups)}, so they are slightly "
        f"too good.{test}"
    )


def _others_read(overview: Overview) -> bool:
    return bool(overview.reads.others.times or overview.reads.gone_others)


def describe_reads(overview: Overview) -> str:
    """The counted reads of the test split, by whom."""
    reads = overview.reads
    looked = (
        "Every run reads the test split (evaluation.test: every): its numbers describe the runs and must not be "
        "used to select one."
        if overview.manifest.test == "every"
        else ""
    )
    counted = f"The test split was read {_times(reads.total)}{_by_whom(overview)}." if reads.total else ""
    apart = _apart(overview)
    if not counted:
        counted = f"The test split was not read{' for this sweep' if apart else ''}."
    return " ".join(filter(None, [looked, counted, _when(overview), *apart]))


def _by_whom(overview: Overview) -> str:
    reads, alone = overview.reads, " of this sweep"
    readers = [(reads.gone, "runs whose folders are gone")]
    if overview.manifest.test == "every" or len(overview.groups) == 1 or overview.selected is None:
        runs = Reads(reads.selected.times + reads.others.times, reads.selected.runs + reads.others.runs)
        readers.insert(0, (runs.times, _runs(runs)))
    else:
        labels = [
            group.label
            for group in overview.groups
            if not group.selected and any(reads_for(overview.sweep.id, result) for result in group.results)
        ]
        listed = ", ".join(f"`{label}`" for label in labels[:3]) + ", …" * (len(labels) > 3)
        readers[:0] = [
            (reads.selected.times, f"{_runs(reads.selected)} of the selected configuration"),
            (reads.others.times, f"{_runs(reads.others)} not selected ({listed})"),
        ]
        alone = " and by no other run of this sweep"
    readers = [(times, who) for times, who in readers if times]
    if len(readers) == 1:
        return f", by {readers[0][1]}{'' if reads.gone else alone}"
    return f": {', '.join(f'{_times(times)} by {who}' for times, who in readers)}"


def _when(overview: Overview) -> str:
    # older sweeps did not note the reads before the selection
    before = (overview.summary.selected or {}).get("reads_before")
    if before is None or overview.manifest.test == "every" or not overview.reads.total or len(overview.groups) == 1:
        return ""
    return f"{before or 'None'} of these reads came before the selection."


def _apart(overview: Overview) -> list[str]:
    """The reads for other sweeps."""
    reused, elsewhere = overview.reads.reused, overview.reads.elsewhere
    told = []
    if reused.times:
        told.append(f"{counted(reused.runs, 'reused run')} had read it for another sweep.")
    if elsewhere.times:
        told.append(f"Other sweeps read it {_times(elsewhere.times)}, with {_runs(elsewhere)} of this one.")
    return told


def _marks(chosen: Selection) -> str:
    words = describe_request(chosen)
    return f"It was selected {words}." if words else ""


def _times(count: int) -> str:
    return counted(count, "time")


def _runs(reads: Reads) -> str:
    return counted(reads.runs, "run")
