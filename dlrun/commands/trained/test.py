"""`dlrun test`: evaluate a run's selected weights, or show a sweep's test."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from dlrun import tracking
from dlrun.errors import UserError
from dlrun.execution import device
from dlrun.report import known_samples
from dlrun.report.overview import Overview, read_overview
from dlrun.report.selected import departures, describe_reads, not_yet
from dlrun.runs.build import Built
from dlrun.runs.measures.quantities import OF_BATCHES
from dlrun.runs.reload.rebuild import rebuild, select
from dlrun.runs.scoring import evaluate_splits, test_once
from dlrun.storage.lookup import find, find_sweep, locate_folder, sweep_of
from dlrun.storage.overlap import mark
from dlrun.storage.read_counts import note_reads
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.finish import is_selected
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.terminal.format import number, table


def _is_sealed(asked: RunDir) -> bool:
    """The folder is of a sweep's job that is not selected."""
    sweep = sweep_of(asked)
    return sweep is not None and not is_selected(sweep, asked.path.name)


def _read_test(built: Built, folder: RunDir, asked: RunDir) -> dict[str, float]:
    """Evaluate the test split; the read is counted for the sweep whose job was asked for."""
    sweep = sweep_of(asked)
    if sweep is None:
        return test_once(built, folder)
    # twice: an older dlrun has noted none before
    note_reads(sweep)
    try:
        return test_once(built, folder, reader=None if asked == folder else sweep.id, by_hand=True)
    finally:
        note_reads(sweep)


def _shown_with(folder: RunDir, asked: RunDir) -> list[RunDir | SweepDir]:
    """The sweeps whose pages have the run's values, and count its reads; the run itself if there are none."""
    sweeps = dict.fromkeys(sweep for run in (asked, folder) if (sweep := sweep_of(run)))
    return [sweep for sweep in sweeps if sweep.manifest.exists()] or [folder]


def _check_batch_size(built: Built, size: int) -> None:
    """Raise `UserError` where a number would depend on it."""
    depending = [name for name, quantity in built.quantities.items() if OF_BATCHES in quantity["unit"]]
    if depending and size != built.evaluation.batch_size:
        raise UserError(
            f"--batch-size {size}: {', '.join(depending)} is averaged over batches of evaluation.batch_size="
            f"{built.evaluation.batch_size} (of_batch), and would be another number. Leave --batch-size out."
        )


def _sweep(sweep: SweepDir) -> int:
    """Show the selected group's test metrics, reading nothing again."""
    overview = read_overview(sweep)
    for part in overview.strata:
        _show_selected(part)
    return 0


def _show_selected(overview: Overview) -> None:
    sweep, chosen = overview.sweep, overview.summary.selected
    if not chosen:
        why = not_yet(overview) if overview.unended else f"`dlrun resume {sweep.id}` continues it."
        raise UserError(
            f"{sweep.path} has selected no configuration (status {sweep.status()}), so none is tested. {why}"
        )
    found = [result for result in overview.results if result.job.n in chosen["jobs"]]
    names = list(dict.fromkeys(name for r in found for name in r.metrics if name.startswith("test/")))
    if not names:
        raise UserError(f"No job of {sweep.path} has read the test split: evaluation.test={overview.manifest.test}.")
    rows = [["", *names]]
    for result in found:
        cells = [number(result.metrics[name]) if name in result.metrics else "" for name in names]
        rows.append([f"{sweep.id}/{result.job.n} seed={result.job.replicate}", *cells])
    if len(found) > 1:  # over the seeds
        means = [fmean(r.metrics[name] for r in found if name in r.metrics) for name in names]
        rows.append(["mean", *map(number, means)])
    output.say(f"{chosen['label']}  selected by {chosen['monitor']}")
    output.say(table(rows))
    told = departures(overview), describe_reads(overview), known_samples.describe_runs([r.summary for r in found])
    for sentence in filter(None, told):
        output.say(f"  {sentence}")


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="dlrun test",
        description="Evaluate a run's selected weights on a split, and count each read of the test split. Of a sweep, "
        "show the test metrics of its selected group.",
    )
    parser.add_argument("run", metavar="RUN|SWEEP", help="its folder, or the beginning of its id")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="default: test")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples at a time; no number depends on it")
    parser.add_argument(
        "--force", action="store_true", help="read the test split of a sweep's job that was not selected"
    )
    arguments = parser.parse_args(argv)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: expected at least 1.")
    sweep = find_sweep(arguments.run)
    if sweep is not None:
        return _sweep(sweep)
    asked = RunDir(locate_folder(arguments.run, what="run or sweep"))
    # a reused job's run is another sweep's
    folder = find(str(asked.path))
    if arguments.split == "test" and not arguments.force and _is_sealed(asked):
        raise UserError(
            f"{asked.id} is a job of a sweep, and was not selected: its test split is sealed."
            f"\nSelect by `--split validation`. To read the test split nevertheless, add --force."
        )
    if arguments.split == "test":
        folder.check_writable(
            "Each read of the test split is counted there, so it is not read. "
            f"Type `dlrun test {folder.id} --split validation`, or copy the run's folder and test the copy.",
        )
    built = rebuild(folder, watched=False)
    if arguments.batch_size:  # memory and speed alone
        _check_batch_size(built, arguments.batch_size)
        built = replace(built, training=replace(built.training, evaluation_batch_size=arguments.batch_size))
    if getattr(built.data, arguments.split) is None:
        raise UserError(f"{built.data.name} has no {arguments.split} split in this run.")
    step = select(built, folder)
    device.apply(built.execution)
    metrics = _read_test(built, folder, asked) if arguments.split == "test" else evaluate_splits(built, arguments.split)
    output.say(f"{folder.id if folder.of_a_sweep else folder.path.name}  weights of step {step}")
    output.say(table([[name, number(value)] for name, value in metrics.items()]))
    if known := mark(folder.summary().origin):
        output.say(f"  {known}")
    if arguments.split == "test":
        output.say(f"  reads of the test split so far: {folder.summary().test_reads}")
        if built.tracking.enabled:  # the trackers get the new metrics, and the count of reads
            for each in _shown_with(folder, asked):
                tracking.start(each)
    return 0
