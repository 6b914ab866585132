"""Batches and evaluations that are too large for the memory, taken in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.failures.memory import Found, Memory
from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.errors import RunError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import for_task
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.schedules.curves import constant
from dlrun.types import Batch
from tests.engine.test_loop import CPU, Notes, data


class Small(nn.Module):
    """A network on a device with room for `holds` samples."""

    def __init__(self, holds: int, *, from_call: int = 0, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = [nn.BatchNorm1d(16)] if norm else []
        self.layers = nn.Sequential(nn.Linear(4, 16), *norms, nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 2))
        self.holds, self.from_call, self.calls = holds, from_call, 0

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        self.calls += 1
        # after the layers: their masks are drawn, and their statistics are taken
        if len(x) > self.holds and self.calls > self.from_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return outputs


def small(model: nn.Module, memory: Memory, accumulate: int = 1, **options: Any) -> Training:
    objective = Objective(model, cross_entropy)
    optimizer = Descent(Adam(lr=0.05), accumulate=accumulate)
    optimizer.init(objective)
    optimizer.memory = memory
    plan = Plan(steps=12, per_epoch=6, log_every=4, evaluate_every=5, checkpoint_every=1)
    batches = Batches(data(47, 0), size=8, seed=5, device=CPU)
    given = {"validation": data(31, 1), "metrics": for_task("classification"), "memory": memory, "plan": plan}
    return Training(objective, batches, optimizer, constant, seed=5, device=CPU, **given | options)  # type: ignore[arg-type]


def trained(run: Training, start: State | None = None) -> tuple[Notes, list[Tensor]]:
    notes = Notes()
    loop.train(run, start or State(), notes)
    return notes, [p.detach().clone() for p in run.objective.params]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.fixture(autouse=True)
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    capsys.readouterr()


@pytest.mark.parametrize(("holds", "parts"), [(4, 2), (2, 4), (1, 8)])
def test_a_batch_too_large_is_the_same_as_an_accumulated_one(holds: int, parts: int) -> None:
    found, expected = Memory(auto=True), small(Small(100), Memory(), parts, validation=None)
    limited = trained(small(Small(holds), found, validation=None))
    by_hand = trained(expected)
    assert equal(limited[1], by_hand[1])
    assert limited[0].curve("train/loss") == by_hand[0].curve("train/loss")
    assert found.found[-1] == Found("4 1", 0, holds)
    given = trained(small(Small(holds), Memory(holds), validation=None))
    assert equal(limited[1], given[1])


def test_what_fits_is_kept_and_repeated_by_a_resumed_run(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[dict[str, Any]] = []
    memory = Memory(auto=True)
    memory.keep = lambda found: kept.__setitem__(slice(None), found)
    # room for 8 samples in the first 5 steps, later for 3
    run = small(Small(3, from_call=5), memory, validation=None)
    notes, weights = trained(run)
    assert kept == [{"shape": "4 1", "step": 5, "samples": 4}, {"shape": "4 1", "step": 5, "samples": 2}]
    assert "from step 6 on they are taken 2 at a time" in capsys.readouterr().err
    for step in (2, 8):
        again = small(Small(100), Memory(auto=True, found=kept), validation=None)
        assert equal(trained(again, loop.restore(again, notes.saved[step]))[1], weights)


def test_statistics_of_a_batch_are_not_taken_twice(capsys: pytest.CaptureFixture[str]) -> None:
    limited, memory = Small(4, norm=True), Memory(auto=True)
    run = small(limited, memory, validation=None)
    memory.watch(run.objective)
    trained(run)
    assert "but for BatchNorm1d, which takes its statistics from each part" in capsys.readouterr().err
    plain = Small(100, norm=True)
    trained(small(plain, Memory(), 2, validation=None))
    assert all(map(torch.equal, limited.state_dict().values(), plain.state_dict().values()))


def test_one_sample_too_many_and_a_loss_of_the_batch_say_so() -> None:
    with pytest.raises(RunError, match=r"(?s)out of memory.*one sample alone is too much.*activation_checkpointing"):
        trained(small(Small(0), Memory(auto=True), validation=None))

    def compares(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.x).std()

    compares.of_batch = True  # type: ignore[attr-defined]
    run = small(Small(4), Memory(auto=True), validation=None)
    run.objective.loss = compares
    with pytest.raises(RunError, match="not cut into parts: the loss compares samples of a batch"):
        trained(run)
    with pytest.raises(RunError, match="accumulate=2"):
        trained(small(Small(4), Memory(), validation=None))


def test_an_update_that_does_not_fit_is_not_taken_twice() -> None:
    run = small(Small(100), Memory(auto=True), validation=None)

    def update(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    run.optimizer.rule.update = update  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="Step 1 failed"):
        trained(run)
    assert not run.memory.found


def test_an_evaluation_takes_fewer_samples_with_the_same_averages(capsys: pytest.CaptureFixture[str]) -> None:
    memory, kept = Memory(auto=True), list[Any]()
    memory.keep = kept.append
    notes, weights = trained(small(Small(9), memory))
    whole, expected = trained(small(Small(100), Memory()))
    assert equal(weights, expected)
    for name in ("val/loss", "val/error"):
        assert notes.curve(name) == pytest.approx(whole.curve(name), rel=1e-6)
    assert [each["samples"] for each in kept[-1]] == [500, 250, 125, 63, 32, 16, 8]
    assert "evaluated 8 at a time, with the same averages" in capsys.readouterr().err
    # at the step where they were found, and not before
    assert (memory.evaluated(1000, 4), memory.evaluated(1000, 5)) == (1000, 8)
    of_batch = replace(small(Small(9), Memory()), metrics={"mine": of_batches})
    with pytest.raises(RunError, match=r"evaluation\.batch_size"):
        trained(of_batch)


def of_batches(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    return model(batch.x).std(), 1


of_batches.of_batch = True  # type: ignore[attr-defined]
