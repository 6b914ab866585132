"""The sharing of GPUs and cores among jobs, and of a GPU's places on one machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.errors import ConfigError
from dlrun.sweeps.pool import slots
from dlrun.sweeps.pool.slots import Slot, lock, slots_for

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine(cores=8, gpus=["0"])`: what this process finds."""

    def set_up(*, cores: int = 8, gpus: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(slots, "cores", lambda: cores)
        monkeypatch.setattr(slots, "gpus", lambda: list(gpus))

    return set_up


@pytest.mark.parametrize(
    ("jobs", "given", "count", "threads"),
    [
        (100, {}, 8, 1),
        (3, {}, 3, 2),
        (1, {}, 1, 8),
        (100, {"threads": 3}, 2, 3),
        (100, {"threads": 99}, 1, 99),
        (100, {"slots": 4}, 4, 2),
        (100, {"slots": 20}, 20, 1),
        (2, {"slots": 4}, 2, 4),
        (100, {"slots": 3, "threads": 5}, 3, 5),
    ],
    ids=str,
)
def test_cores_are_shared_out(jobs: int, given: dict[str, int], count: int, threads: int, machine: Machine) -> None:
    machine(cores=8)
    found = slots_for(jobs, device="auto", **given)  # type: ignore[arg-type]
    assert [slot.index for slot in found] == [*range(count)]
    assert {slot.threads for slot in found} == {threads}
    assert {slot.device for slot in found} == {None}


def test_gpus_are_shared_out_all_of_them_first(machine: Machine) -> None:
    machine(cores=8, gpus=("0", "GPU-5a"))
    assert [slot.device for slot in slots_for(100, device="auto")] == ["0", "GPU-5a"]
    assert [slot.device for slot in slots_for(1, device="cuda")] == ["0"]
    shared = slots_for(100, device="cuda", jobs_per_gpu=2)
    assert [(slot.device, slot.place) for slot in shared] == [("0", 0), ("GPU-5a", 0), ("0", 1), ("GPU-5a", 1)]
    assert {slot.threads for slot in shared} == {2}
    assert len(slots_for(100, device="cuda", jobs_per_gpu=2, slots=3)) == 3
    assert [slot.device for slot in slots_for(100, device="cpu", slots=2)] == [None, None]


def test_a_device_that_is_named_is_left_to_the_job(machine: Machine) -> None:
    machine(gpus=("0", "1"))
    assert [slot.device for slot in slots_for(9, device="cuda:1")] == [None]


@pytest.mark.parametrize("name", ["slots", "threads", "jobs_per_gpu"])
def test_less_than_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"hydra.launcher.{name}=0"):
        slots_for(1, device="cpu", **{name: 0})  # type: ignore[arg-type]


def test_the_visible_gpus_are_counted_without_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "nvidia0"]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots.gpus() == ["0", "1"]
    # CUDA ignores what follows the first that there is not
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,99")
    assert slots.gpus() == ["3", "1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert slots.gpus() == []


def test_a_place_belongs_to_one_process_of_the_machine(here: Path) -> None:
    asked = "from dlrun.sweeps.pool.slots import *; print(lock(Slot(0, 'GPU/7', 1, place={})) is not None)"

    def free(place: int) -> bool:
        done = subprocess.run([sys.executable, "-c", asked.format(place)], capture_output=True, text=True, check=True)
        return done.stdout == "True\n"

    held = lock(Slot(0, "GPU/7", 1, place=0))
    assert held is not None
    assert not free(0)
    assert free(1)
    held.release()
    assert free(0)


def test_the_cpu_has_no_places() -> None:
    assert lock(Slot(0, None, 1)) is not None
    assert lock(Slot(0, None, 1)) is not None
