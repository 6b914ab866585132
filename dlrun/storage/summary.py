"""summary.json of a run and of a sweep. Each of its keys is spelled in this file alone.

    >>> summary = Summary({"status": "running", "of_a_later_version": 1})
    >>> summary.test_reads, summary.metrics
    (0, {})
    >>> summary.status = "finished"
    >>> summary.to_dict()
    {'status': 'finished', 'of_a_later_version': 1}

A key that a file lacks, or has as null, reads as its default: old runs lack some. A key that this file does not
know stays in the folder's file when that is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from dlrun.errors import DamagedFile
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.locks import is_held, locked
from dlrun.storage.files.opening import read_json
from dlrun.storage.files.record import Key, Record, describe, fits
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.overlap import Origin, Shared
from dlrun.types import Quantity, StepMemory

R = TypeVar("R", bound=Record)

ADVICE = (
    "Put a copy of it back, or delete it: `dlrun resume` then writes it anew, from the journal and the checkpoints."
)

Status = Literal["running", "finished", "failed", "killed", "pruned", "submitted"]  # the last: of a detached sweep


class Uploaded(Record):
    """How much of a folder its trackers have.

    >>> summary = Summary({"uploaded": {"mlflow": False}})
    >>> summary.mark_sent("mlflow", "stamp of what was sent")
    >>> summary.uploaded, summary.lacks("mlflow", "stamp of what was sent"), summary.lacks("mlflow", "another")
    ({'mlflow': True}, False, True)

    A folder of before there was a second tracker says true, false or null, of MLflow.

    >>> Summary({"uploaded": True}).uploaded, Summary({"uploaded": None}).uploaded
    ({'mlflow': True}, {})
    """

    __slots__ = ()

    mlflow_run_id = Key[str | None](None)
    mlflow_url = Key[str | None](None)

    @property
    def uploaded(self) -> dict[str, bool]:
        """Whether each tracker has all of the folder."""
        found = self._values.get("uploaded")
        return {"mlflow": found} if isinstance(found, bool) else dict(found or {})

    @uploaded.setter
    def uploaded(self, by_tracker: Mapping[str, bool] | None) -> None:
        self._values["uploaded"] = by_tracker

    def misfit(self) -> str | None:
        found = super().misfit()
        for name, kind in (("uploaded", bool | Mapping[str, bool | None]), ("uploaded_stamp", str | Mapping[str, str])):
            if (value := self._values.get(name)) is not None and not fits(value, kind):
                found = found or describe(name, value)
        return found

    def mark_sent(self, tracker: str, stamp: str) -> None:
        """Record that a tracker has everything up to `stamp`."""
        self._values["uploaded"] = self.uploaded | {tracker: True}
        self._values["uploaded_stamp"] = self._stamps() | {tracker: stamp}

    def mark_unsent(self, tracker: str) -> None:
        """Record that a tracker may lack all of it."""
        self._values["uploaded"] = self.uploaded | {tracker: False}

    def lacks(self, tracker: str, *stamps: str) -> bool:
        """Whether a tracker lacks something up to each of `stamps`."""
        return not self.uploaded.get(tracker) or self._stamps().get(tracker) not in stamps

    def _stamps(self) -> dict[str, str]:
        found = self._values.get("uploaded_stamp")
        return {"mlflow": found} if isinstance(found, str) else dict(found or {})


class Reused(Uploaded):
    """reused.json: the other sweep's run of this job."""

    __slots__ = ()

    # its path, relative to the outputs folder that has both
    run = Key("")
    # the job's, which the run must have
    identity = Key[str | None](None)


class Git(TypedDict, total=False):
    """The commit, `dirty` if tracked files differed from it."""

    commit: str
    dirty: bool


class DataSummary(TypedDict, total=False):
    """The data set's fingerprint and split sizes."""

    name: str
    fingerprint: str
    train: int
    validation: int
    test: int
    # each of a split's raw samples alone: equal where the rest of the data set differs
    train_fingerprint: str
    validation_fingerprint: str
    test_fingerprint: str
    shared: Mapping[str, Shared]  # by "test in training" and the like
    columns: str  # of a table: its inputs by their kinds, and its target


OF_OLD_RUNS = dict.fromkeys(("loss", "error", "mse", "nll", "perplexity", "bits_per_byte"), False) | {"accuracy": True}
"""Whether higher is better in the metrics of runs from before 0.2, whose summaries do not say it."""


def split_sizes(data: DataSummary) -> dict[str, int]:
    """The number of samples in each existing split.

    >>> split_sizes({"name": "moons", "test": 10, "train": 80})
    {'train': 80, 'test': 10}
    """
    known: Mapping[str, Any] = data
    return {split: known[split] for split in ("train", "validation", "test") if known.get(split)}


class FolderSummary(Uploaded):
    """The keys common to runs and sweeps."""

    __slots__ = ()

    status = Key[Status]("killed")
    name = Key("run")
    command = Key[str | None](None)
    # where that was typed
    directory = Key[str | None](None)
    # seconds since 1970, of the first start
    started = Key[float | None](None)
    # seconds of all processes that worked in the folder, one after another
    seconds = Key(0.0)
    error = Key[str | None](None)
    test_reads = Key(0)


class Summary(FolderSummary):
    """A run's summary.json."""

    __slots__ = ()
    kind = Key[Literal["run", "job"]]("run")
    sweep = Key[str | None](None)
    # how a job was run, where it had no process of its own
    launcher = Key[str | None](None)
    stacked = Key[int | None](None)

    # what the result depends on
    identity = Key[str | None](None)
    identity_parts = Key[Mapping[str, str]]({})
    initial_weights = Key[str | None](None)
    origin = Key[Origin]({})
    seed = Key[int | None](None)
    config_digests = Key[Sequence[str]](())  # SHA-256 of `.hydra/config.yaml`; while it is replaced, of the new one too
    spec = Key[Mapping[str, Any]]({})
    # of the raw inputs, and how they are prepared: `dlrun predict` needs no data set
    inputs = Key[Mapping[str, Any]]({})
    data = Key[DataSummary]({})
    parameters = Key[int | None](None)
    # of these, those that train
    trained_parameters = Key[int | None](None)
    flop_per_step = Key[int | None](None)
    horizon = Key[int | None](None)
    minutes = Key[float | None](None)
    test_reads_for = Key[Mapping[str, int]]({})  # of `test_reads`, those for sweeps that reuse the run, by their ids

    # where it was trained
    device = Key[str | None](None)
    device_name = Key[str | None](None)
    precision = Key[str | None](None)
    threads = Key[int | None](None)
    execution = Key[Mapping[str, Any]]({})
    memory = Key[Mapping[str, StepMemory]]({})
    git = Key[Git]({})
    versions = Key[Mapping[str, str]]({})
    hostname = Key[str | None](None)

    # what came of it: `metrics` at the selected weights, `last` at those of the last step
    metrics = Key[Mapping[str, float]]({})
    last = Key[Mapping[str, float]]({})
    quantities = Key[Mapping[str, Quantity]]({})  # by name without the split
    selected_by = Key[str | None](None)
    best_step = Key[int | None](None)
    stopped = Key[Mapping[str, str]]({})  # the observer that has ended the training: `by`, `reason`
    steps = Key[int | None](None)
    nonfinite = Key[Mapping[str, Any]]({})  # a loss that is none: its `step`, `loss`, `samples`, and those `odd`
    spikes = Key[Sequence[int]](())  # the steps left out
    train_seconds = Key[float | None](None)
    cost = Key[Mapping[str, float]]({})
    cost_notes = Key[Mapping[str, str]]({})  # `basis` of the energy, `currency` of the money

    def known_parts(self) -> dict[str, str]:
        """The known parts of the identity."""
        # runs of before 0.2 lack `identity_parts`; these keys they have
        told = {"data": self.data.get("fingerprint"), "device": self.device, "precision": self.precision}
        return {key: value for key, value in told.items() if value} | dict(self.identity_parts)

    def higher_is_better(self, metric: str) -> bool | None:
        """Whether higher values of a metric are better; None if nobody declared it.

        >>> Summary().higher_is_better("val/accuracy"), Summary().higher_is_better("val/auc")
        (True, None)
        """
        name = metric.partition("/")[2] or metric
        known = self.quantities.get(name)
        return known["higher_is_better"] if known else OF_OLD_RUNS.get(name)

    def unit(self, metric: str) -> str | None:
        known = self.quantities.get(metric.partition("/")[2] or metric)
        return known["unit"] if known else None

    def samples(self, metric: str) -> str | None:
        """The fingerprint of the samples behind a metric."""
        split = metric.partition("/")[0].replace("val", "validation")
        return dict(self.data).get(f"{split}_fingerprint")  # type: ignore[return-value]

    def sample_count(self, metric: str) -> int | None:
        """How many samples, or tokens of a text, are behind a metric.

        >>> Summary({"data": {"validation": 200}}).sample_count("val/error")
        200
        """
        split = metric.partition("/")[0].replace("val", "validation")
        samples, shape = split_sizes(self.data).get(split), self.spec.get("input_shape")
        return samples * int(shape[0]) if samples and shape and self.spec.get("task") == "language" else samples

    def to_send(self) -> list[Any]:
        """The values that may change after a first upload."""
        return [self._values.get(key) for key in ("status", "metrics", "last", "test_reads", "best_step")]


def read(folder: Path, kind: type[R]) -> R:
    """The summary of a folder; empty if it has none.

    Raises `DamagedFile`.
    """
    path = folder / "summary.json"
    try:
        return read_record(path, kind, advice=ADVICE)
    except FileNotFoundError:
        return kind()


def read_record(path: Path, kind: type[R], *, advice: str) -> R:
    """The record of a file.

    Raises `FileNotFoundError`, and `DamagedFile` with `advice`.
    """
    record = kind(read_json(path, advice=advice))
    record.read_numbers()
    if found := record.misfit():
        raise DamagedFile(path, found, advice)
    return record


@contextmanager
def edit(folder: Path, kind: type[R]) -> Iterator[R]:
    """Yield a folder's summary to change, under its lock."""
    with locked(folder / ".summary.lock"):
        record = read(folder, kind)
        yield record
        # a line an entry: indented throughout it would take ten times as long
        lines = ",\n".join(f"  {dumps(name)}: {dumps(value)}" for name, value in record.to_dict().items())
        write_atomically(folder / "summary.json", f"{{\n{lines}\n}}\n".encode())


def true_status(folder: Path) -> Status:
    """The status of a folder: a dead `running` becomes `killed`."""
    status = read(folder, FolderSummary).status
    if status == "running" and not is_held(folder):
        try:
            with edit(folder, FolderSummary) as summary:
                # read again under the lock: the run may have ended between the two looks
                if summary.status == "running":
                    summary.status = "killed"
                status = summary.status
        except OSError:  # somebody else's, to be read only; or a full disk
            status = "killed"
    return status
