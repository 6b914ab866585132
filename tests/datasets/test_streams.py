"""Streams: batches in their order, a place in the checkpoint, and what a stream cannot have."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from dlrun.datasets import Pad, from_datasets, from_stream
from dlrun.engine.reading.streams import StreamBatches
from dlrun.errors import ConfigError, DataError, RunError
from tests.conftest import Called

Call = Callable[..., Called]


class Numbers(IterableDataset[Any]):
    """The numbers 0 to n-1, each pass in another order, halved by torch's example of workers."""

    def __init__(self, n: int = 10, *, noisy: bool = False) -> None:
        self.n, self.noisy, self.epoch = n, noisy, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> list[int]:
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist()

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        for i in self.order()[info.id if info else 0 :: info.num_workers if info else 1]:
            yield torch.tensor([float(i), random.random() if self.noisy else 0.0]), i % 2


class Placed(Numbers):
    """Numbers that know their place; their noise is drawn by the sample."""

    at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[Any]:
        for i in self.order()[self.at :]:
            self.at += 1
            yield torch.tensor([float(i), random.random() if self.noisy else 0.0]), i % 2


class Buffered(Placed):
    """Numbers whose state forgets a buffer."""

    def __iter__(self) -> Iterator[Any]:
        samples = super().__iter__()
        while buffer := list(islice(samples, 4)):
            yield from reversed(buffer)


class Clock(Numbers):
    """A stream that is never the same."""

    def __iter__(self) -> Iterator[Any]:
        draw = random.Random()
        for i in range(self.n):
            yield torch.tensor([draw.random(), 0.0]), i % 2


class Once(Numbers):
    """A stream of what it has begun already."""

    def __init__(self) -> None:
        super().__init__()
        self.samples = super().__iter__()

    def __iter__(self) -> Iterator[Any]:
        return self.samples


def batches_of(source: Any, workers: int = 0, *, size: int = 4, drop_last: bool = False, **given: Any) -> StreamBatches:
    data = from_stream("numbers", source, task="classification", classes=2, **given)
    cpu = torch.device("cpu")
    return StreamBatches(
        data.train,  # type: ignore[arg-type]
        size=size, seed=3, device=cpu, per_epoch=3, workers=workers, drop_last=drop_last
    )  # fmt: skip


def take(batches: StreamBatches, number: int, step: int = 0) -> list[Tensor]:
    with closing(batches.start(step)) as found:
        return [batch.x for batch in islice(found, number)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_a_plain_loop(workers: int, drop_last: bool) -> None:
    batches = batches_of(Numbers(), workers, drop_last=drop_last)
    expected = []
    for epoch in range(3):
        stream = Numbers()
        stream.set_epoch(epoch)
        values = [float(x[0]) for x, _ in stream]
        expected += [values[:4], values[4:8]] + ([] if drop_last else [values[8:]])
    assert [x[:, 0].tolist() for x in take(batches, len(expected))] == expected
    # the last batch but one is known too: the loop draws one ahead
    seen = [batches.seen(step) for step in range(len(expected) + 1)]
    assert seen == [sum(map(len, expected[:step])) for step in range(len(expected) + 1)]


def test_noise_is_the_same_for_any_number_of_workers() -> None:
    found = [take(batches_of(Numbers(noisy=True), workers), 7) for workers in (0, 1, 2)]
    assert all(equal(found[0], each) for each in found)
    assert len({float(v) for x in found[0] for v in x[:, 1]}) == sum(map(len, found[0]))


@pytest.mark.parametrize(
    ("source", "workers", "sharded"),
    [(Numbers, 0, False), (Numbers, 2, False), (Numbers, 2, True), (Placed, 0, False), (Placed, 2, False)],
)
@pytest.mark.parametrize("step", [3, 5])
def test_any_step_is_taken_up_again(source: Any, workers: int, sharded: bool, step: int) -> None:
    first = batches_of(source(11, noisy=True), workers, sharded=sharded)
    with closing(first.start(0)) as found:
        before = list(islice(found, step + 1))
        kept = first.state_dict(step)
        rest = [before[-1].x, *(batch.x for batch in islice(found, 6))]
    again = batches_of(source(11, noisy=True), workers, sharded=sharded)
    again.load_state_dict(kept)
    assert equal(take(again, 7, step), rest)
    assert again.seen(step) == sum(batch.size for batch in before[:-1])
    # at the end of a pass nothing but its number is kept
    assert (kept["state"] is not None) == (source is Placed and kept["batches"] < 3)
    assert first.own_state == (source is Placed)


def test_shares_of_workers_come_in_turn_and_are_whole() -> None:
    batches = batches_of(Numbers(11), 2, sharded=True)
    order = Numbers(11).order()
    halves = order[::2], order[1::2]
    expected = [halves[0][:4], halves[1][:4], halves[0][4:], halves[1][4:]]
    assert [x[:, 0].tolist() for x in take(batches, 4)] == expected
    kept = batches.state_dict(4)
    with pytest.raises(ConfigError, match=r"Type trainer\.workers=2"):
        batches_of(Numbers(11), 0, sharded=True).load_state_dict(kept)


def test_shards_that_are_shuffled_first_are_shared_out_whole() -> None:
    class Shards(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            info, shards = get_worker_info(), list(range(6))
            random.shuffle(shards)
            for shard in shards[info.id :: info.num_workers] if info else shards:
                yield from ((torch.tensor([float(4 * shard + i), 0.0]), i % 2) for i in range(4))

    found = take(batches_of(Shards(), 2, sharded=True), 12)
    for each in (found[:6], found[6:]):
        assert sorted(float(v) for x in each for v in x[:, 0]) == list(range(24))
    assert not equal(found[:6], found[6:])


def test_a_state_that_forgets_a_buffer_is_not_used() -> None:
    batches = batches_of(Buffered(20))
    assert not batches.own_state and "does not bring back the same samples" in batches.way
    assert batches_of(Placed(20)).way == "resumes by its own state"


def test_a_pass_that_has_shrunk_or_is_empty_is_an_error() -> None:
    batches = batches_of(Numbers(20))
    batches.load_state_dict({"step": 4, "workers": 0, "number": 0, "batches": 9, "samples": 16, "state": None})
    with pytest.raises(RunError, match="4 batches before the place"):
        take(batches, 1, 4)
    with pytest.raises(RunError, match="fewer than 16 samples"):
        take(batches_of(Numbers(), size=16, drop_last=True), 1)


def test_rows_of_several_lengths_are_padded() -> None:
    class Rows(Numbers):
        def __iter__(self) -> Iterator[Any]:
            yield from ({"ids": list(range(1, 2 + i % 3)), "label": i % 2} for i in range(self.n))

    batches = batches_of(Rows(), 2, collate=Pad(), inputs="ids", targets="label")
    assert batches.split.first(3).gather(torch.arange(3)).x.tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3]]
    assert [list(x.shape) for x in take(batches, 3)] == [[4, 3], [4, 3], [2, 3]]


def test_a_bad_sample_is_named() -> None:
    class Bad(Numbers):
        def __iter__(self) -> Iterator[Any]:
            yield from (((0.0, 1.0), int(i == 25)) if i < 26 else ((0.0,), 0) for i in range(30))

    with pytest.raises(RunError, match="Sample 26 of pass 0 of Bad, in the training split: its inputs have the shape"):
        take(batches_of(Bad(), 2), 9)


def test_what_can_be_read_once_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="is a generator, which can be read once"):
        batches_of(x for x in Numbers())
    with pytest.raises(DataError, match="can be read once: the second time"):
        batches_of(Once())
    with pytest.raises(DataError, match="has no sample"):
        batches_of(Numbers(0))
    batches_of(Clock())
    assert "gives other samples each time it is read" in capfd.readouterr().err


def test_passes_that_are_all_alike_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    class Counting(IterableDataset[Any]):
        passes = 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            yield from ((torch.tensor([float(i * self.passes), 0.0]), i % 2) for i in range(4))

    batches = batches_of(Counting())
    assert "counts its passes in itself" in capfd.readouterr().err
    assert equal(*([x] for x in take(batches, 2)))
    batches_of(Numbers())
    assert not capfd.readouterr().err


def test_the_two_doors_name_each_other() -> None:
    with pytest.raises(ConfigError, match="from_stream"):
        from_datasets("numbers", Numbers(), task="classification", classes=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="from_datasets"):
        batches_of([(torch.zeros(2), 0)])


def test_evaluation_streams_are_kept_in_memory() -> None:
    data = from_stream("numbers", Numbers(), Numbers(7), task="classification", classes=2)
    assert data.validation is not None and len(data.validation) == 7
    assert data.validation.gather(torch.arange(7)).x[:, 0].tolist() == Numbers(7).order()
    other = from_stream("numbers", Numbers(12), Numbers(7), task="classification", classes=2)
    assert data.split_fingerprints["validation"] == other.split_fingerprints["validation"]
    assert data.fingerprint != other.fingerprint


def test_overfitting_repeats_the_first_batches() -> None:
    batches = replace(batches_of(Numbers()), only=2)
    found = take(batches, 5)
    assert equal(found[:2], found[2:4]) and equal(take(batches, 2, 3), [found[1], found[0]])


LAB = """
from dlrun.datasets import from_stream
from tests.datasets.test_streams import Numbers, Placed

def numbers(placed: bool = False, epoch_samples: int | None = None):
    train = (Placed if placed else Numbers)(300, noisy=True)
    held = [(x / 300, y) for x, y in Numbers(40)]
    return from_stream("numbers", train, held, held, task="classification", classes=2, epoch_samples=epoch_samples)
"""


@pytest.fixture
def lab(here: Path) -> Path:
    """A user's folder with `dataset=numbers`."""
    (here / "lab.py").write_text(LAB)
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "numbers.yaml").write_text("_target_: lab.numbers\n")
    return here


RUN = ("dataset=numbers", "tracking.enabled=false", "trainer.batch_size=16", "trainer.figures=false")


@pytest.mark.parametrize("given", ["trainer.workers=0 +dataset.placed=true", "trainer.workers=2"])
def test_a_run_resumes_exactly(lab: Path, verify_resume: Call, given: str) -> None:
    done = verify_resume(*RUN, "trainer.steps=45", "trainer.evaluate_every=10", *given.split())
    assert done.code == 0, done.out + done.err
    assert "equal, bit for bit" in done.out


def test_a_run_asks_for_its_length_and_says_how_it_reads(lab: Path, call: Call) -> None:
    done = call("train", *RUN)
    assert done.code == 2 and "Type for example trainer.steps=1000" in done.err
    done = call("train", *RUN, "trainer.steps=4", "trainer.workers=0")
    assert done.code == 0, done.err
    assert "a stream train, 40 validation" in done.out
    assert "resumes by skipping what was read (it has no state_dict)" in done.out
    done = call("train", *RUN, "+dataset.epoch_samples=300", "trainer.epochs=1", "trainer.workers=0")
    assert done.code == 0 and "19 of 16 samples (1 epoch)" in done.out, done.out + done.err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("trainer.batch_size=null", "trainer.batch_size=64"),
        ("trainer.classes_per_batch=2", "classes of all samples"),
        ("trainer.minutes=1", "epoch_samples=N"),
        ("metrics.knn._target_=dlrun.metrics.knn_accuracy", "compares with the training samples"),
    ],
)
def test_what_needs_all_samples_is_refused(lab: Path, call: Call, given: str, says: str) -> None:
    plus = "+" if given.startswith("metrics") else ""
    done = call("train", *RUN, "trainer.steps=4", "trainer.workers=0", plus + given)
    assert done.code == 2 and says in done.err, done.err
