"""Entries of the gallery, from the folders of sweeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from dlrun.config import choices
from dlrun.report import tables
from dlrun.report.claims import check, own_figures
from dlrun.report.figures import sweep_figures
from dlrun.report.gallery.entry import Entry, Picture
from dlrun.report.overview import Overview, read_overview
from dlrun.report.write import FigureSource, save_all
from dlrun.storage import manifest
from dlrun.storage.files.links import check_files
from dlrun.storage.lookup import all_sweeps, read_each
from dlrun.storage.results import Result, results, unended
from dlrun.storage.summary import Summary
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import counted


def newest_of_each_study() -> list[SweepDir]:
    """The newest whole sweep of each study under the outputs folder; of a study without one, its newest.

    Tries of two steps (`trainer.fast`) are none.
    """
    by_name: dict[str, list[tuple[SweepDir, bool]]] = {}
    for sweep, (name, whole) in read_each(all_sweeps(), _name_of_study):
        if name:
            by_name.setdefault(name, []).append((sweep, whole))
    newest = (next(((s, w) for s, w in reversed(sweeps) if w), sweeps[-1]) for sweeps in by_name.values())
    return [sweep for sweep, _ in newest]


def _name_of_study(sweep: SweepDir) -> tuple[str, bool]:
    """A sweep's name, empty without a study or for a try, and whether the sweep is whole."""
    found = manifest.read(sweep)
    tried = any(job.config.get("trainer", {}).get("fast") for job in found.jobs)
    return (found.name, is_whole(sweep)) if found.study and not tried else ("", False)


def is_whole(sweep: SweepDir) -> bool:
    """Every job of the sweep has finished, or was pruned on purpose."""
    found = results(sweep)
    return not unended(found, sweep.summary()) and not _unsuccessful(found)


def read_entry(sweep: SweepDir) -> Entry:
    """Check a sweep's claims anew and draw its figures, into the folder of its report.

    Without a study: the figures of a run, and of several groups those of the sweep.
    """
    check_files(sweep.path)
    overview = read_overview(sweep)
    asked, remark = overview.manifest, _remark(overview)
    return Entry(
        name=asked.name,
        command=asked.command,
        question=question(asked.name),
        claims=check(overview),
        scores=[] if asked.study else _scores(overview),
        pictures=_pictures(overview),
        started=asked.created,
        seconds=overview.summary.seconds or None,
        jobs=len(asked.jobs),
        setting=setting(overview.finished[0].summary) if overview.finished else "",
        whole=not remark,
        remark=remark,
    )


def question(experiment: str) -> str:
    """The first sentence of an experiment's file; empty if there is none of this name."""
    file = choices.groups().get("experiment", {}).get(experiment)
    return choices.describe(file) if file else ""


def _pictures(overview: Overview) -> list[Picture]:
    folder = overview.sweep.report / "figures"
    if len(overview.groups) == 1 and not overview.manifest.study:
        return _of_a_run(overview.finished[0]) if overview.finished else []
    of_study: Sequence[FigureSource] = [partial(own_figures, overview)]
    sources = of_study if overview.manifest.study else sweep_figures(overview)
    return [Picture(folder / image.name, image.caption) for image in save_all(sources, folder)]


def _of_a_run(result: Result) -> list[Picture]:
    # the schedule of the rate is no result
    files = [file for file in sorted(result.run.figures.glob("*.png")) if file.stem != "schedule"]
    return [
        Picture(f.with_suffix(""), f"{f.stem.replace('_', ' ').capitalize()} (seed {result.job.seed})") for f in files
    ]


def _scores(overview: Overview) -> Sequence[Sequence[str]]:
    # without a choice the only group is the result
    group = overview.selected or (overview.groups[0] if len(overview.groups) == 1 else None)
    table = tables.test_scores(overview, group) if group else None
    return table.rows if table else []


def setting(run: Summary) -> str:
    """Where a run was trained, and by which versions."""
    commit = run.git.get("commit", "")[:9]
    words = [
        run.device_name or run.device,
        counted(run.threads, "thread") if run.threads else "",
        *(f"{name} {version}" for name, version in run.versions.items() if name in ("torch", "dlrun")),
        f"commit {commit}{' with changes' * bool(run.git.get('dirty'))}" if commit else "",
    ]
    return ", ".join(filter(None, words))


def _unsuccessful(found: Sequence[Result]) -> list[Result]:
    return [result for result in found if result.status not in ("finished", "pruned")]


def _remark(overview: Overview) -> str:
    left = _unsuccessful(overview.results)
    trials = overview.unended.get("trials", 0)
    if not left:
        return f"Not whole: {counted(trials, 'trial')} missing." if trials else ""
    statuses = ", ".join(f"{n} {status}" for status, n in Counter(result.status for result in left).items())
    error = next((f" {r.job.label}: {r.summary.error}." for r in left if r.summary.error), "")
    retry = " --retry-failed" if any(result.status == "failed" for result in left) else ""
    return (
        f"Not whole: of {counted(len(overview.results), 'job')}, {statuses}.{error} "
        f"`dlrun resume {overview.sweep.id}{retry}` goes on."
    )
