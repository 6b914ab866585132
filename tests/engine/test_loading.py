"""Workers of a data set: their errors and deaths are one message, and none outlives the reading."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from torch.utils.data import Dataset, get_worker_info

from dlrun.datasets.samples.on_demand import MapStyleSamples
from dlrun.engine.reading.loading import load
from dlrun.engine.reading.workers import end_with_parent
from dlrun.errors import RunError


class Breaking(Dataset[tuple[float, int]]):
    """Its samples do `act` at the seventh, in a worker."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> tuple[float, int]:
        if i == 7:
            self.act()
        return float(i), 0


def fail() -> None:
    raise ValueError("no such picture")


def hang() -> None:
    time.sleep(1000 if get_worker_info() else 0)


def reading(act: Callable[[], object], workers: int) -> Generator[Any, None, None]:
    keyed = ([(0, (2 * n + i) % 100) for i in range(2)] for n in iter(range(1000)))
    samples = MapStyleSamples(Breaking(act), list(range(100)), "classification")
    return load(samples, keyed, workers=workers, pin_memory=False)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    assert not multiprocessing.active_children()
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_in_a_sample_is_a_message_that_names_it(workers: int) -> None:
    with pytest.raises(RunError, match=r"^Reading sample 7 of Breaking failed: ValueError: no such picture") as caught:
        list(reading(fail, workers))
    assert "Traceback" not in str(caught.value)
    assert "in fail" in caught.value.__notes__[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_ends_itself_is_told_with_its_sample(workers: int) -> None:
    with pytest.raises(RunError, match="code 3 while it read sample 7"):
        list(reading(lambda: os._exit(3), workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_while_the_training_computes_is_told_at_the_next_batch(workers: int) -> None:
    batches = reading(lambda: None, workers)
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(RunError, match="SIGKILL"):
        list(batches)


def test_a_worker_that_hangs_does_not_keep_the_reading_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.engine.reading.workers.PATIENCE", 0.1)
    batches = reading(hang, 1)
    next(batches)
    batches.close()


def test_workers_obey_no_signal_that_a_terminal_or_scheduler_sends_to_all() -> None:
    batches = reading(lambda: None, 1)
    next(batches)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(multiprocessing.active_children()[0].pid or 0, number)
    for _ in range(10):
        next(batches)
    batches.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_who_asks_for_it_ends_with_its_parent() -> None:
    end, its_end = os.pipe()
    ready, is_ready = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            end_with_parent(signal.SIGKILL)
            os.write(is_ready, b".")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(its_end)
    os.waitpid(parent, 0)
    # the other end is open in the child until it has ended
    assert select.select([end], [], [], 30)[0]
    for each in (end, ready, is_ready):
        os.close(each)
