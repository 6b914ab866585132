"""Energy, money and CO2: counters that begin anew, shares of them, and what follows from prices."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun.config import compose
from dlrun.config.settings import Cost
from dlrun.execution.energy import sampler as sampling_module
from dlrun.execution.energy.bill import Bill, Spent
from dlrun.execution.energy.nvml import NvmlCounter
from dlrun.execution.energy.rapl import CpuShare, RaplCounter, find_counters
from dlrun.execution.energy.sampler import Sampler, sampling
from dlrun.runs.build import build
from dlrun.runs.interrupt import Interrupt
from dlrun.runs.open_run import open_run, record_failure
from dlrun.storage.journal import curves, open_journal
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.tracking.content.cost import describe_cost
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
FAST = ("trainer.steps=6", "trainer.log_every=2", "trainer.figures=false", "tracking.enabled=false")


def zone(root: Path, folder: str, name: str, microjoules: int, most: int = 10_000_000) -> Path:
    (root / folder).mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (root / folder / file).write_text(f"{value}\n")
    return root / folder


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    counter = RaplCounter(folder)
    (folder / "energy_uj").write_text("9500000\n")
    assert counter.joules() == 0.5
    (folder / "energy_uj").write_text("1500000\n")  # 10 is where it begins anew
    assert counter.joules() == 2.0
    assert counter.joules() == 0.0


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    for folder, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),  # a part of its package
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "psys"),  # the packages, and the rest of the machine
        ("intel-rapl:2", "package-1"),
    ):
        zone(tmp_path, folder, name, 0)
    (tmp_path / "intel-rapl").mkdir()  # the control type
    assert [counter.name for counter in find_counters(tmp_path)] == ["package-0", "dram", "package-1"]
    (tmp_path / "intel-rapl:2" / "energy_uj").unlink()  # as one that only root may read
    assert [counter.name for counter in find_counters(tmp_path)] == ["package-0", "dram"]
    assert find_counters(tmp_path / "none") == []


def write_proc(root: Path, *, own: int, child: int, others: int, idle: int) -> None:
    me = os.getpid()
    task = root / str(me) / "task" / str(me)
    task.mkdir(parents=True, exist_ok=True)
    (task / "children").write_text("77 \n")
    (root / "77").mkdir(exist_ok=True)
    for pid, ticks in ((me, own), (77, child)):
        # 13 fields stand before its user time; the name may hold blanks and brackets
        (root / str(pid) / "stat").write_text(f"{pid} (a b) c) S {' '.join(['0'] * 10)} {ticks} 0 0 0 20 0\n")
    (root / "stat").write_text(f"cpu  {own + child + others} 0 0 {idle} 5 0 0 0 0 0\ncpu0 1 2 3\n")


def test_a_process_has_its_share_of_the_busy_time(tmp_path: Path) -> None:
    write_proc(tmp_path, own=100, child=0, others=1000, idle=0)
    share = CpuShare(tmp_path)
    write_proc(tmp_path, own=150, child=50, others=1100, idle=900)  # 50 and 50 of 200, idle time apart
    assert share.since_last() == 0.5
    assert share.since_last() == 0.0


class FakeNvml:
    """The driver's library: a GPU with a counter of energy, or with its power alone."""

    def __init__(self, *, energy: bool) -> None:
        self.millijoules = 5_000_000 if energy else None

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        return 0 if uuid == b"GPU-1234" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, found: Any) -> int:  # noqa: N802
        if self.millijoules is None:
            return 3  # not supported
        found._obj.value = self.millijoules
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: ctypes.c_void_p, found: Any) -> int:  # noqa: N802
        found._obj.value = 200_000
        return 0


def test_a_gpu_s_energy_is_its_counter_s() -> None:
    library = FakeNvml(energy=True)
    counter = NvmlCounter(library, "GPU-1234")
    library.millijoules = 5_012_500
    assert counter.joules() == 12.5
    library.millijoules = 1_000  # the driver was loaded again
    assert counter.joules() == 0.0
    with pytest.raises(OSError, match="nvmlDeviceGetHandleByUUID returned 6"):
        NvmlCounter(library, "GPU-0")


def test_an_old_gpu_s_energy_is_its_power_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0])
    monkeypatch.setattr("dlrun.execution.energy.nvml.time.monotonic", lambda: next(times))
    assert NvmlCounter(FakeNvml(energy=False), "GPU-1234").joules() == 600.0


class Counted:
    """A counter with some joules each time."""

    def __init__(self, joules: float, name: str = "package-0") -> None:
        self.name, self._joules = name, joules

    def joules(self) -> float:
        return self._joules


class Half:
    def since_last(self) -> float:
        return 0.5


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sampler]]:
    """Counters on this machine: each sample finds 8 joules, of which half are this process's."""
    made: list[Sampler] = []

    def make(device: torch.device) -> Sampler:
        made.append(Sampler([], [Counted(8.0)], Half()))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(sampling_module, "_make", make)
    yield made
    assert not sampling_module._open


def test_runs_of_a_process_share_a_sampler(counters: list[Sampler]) -> None:
    cpu = torch.device("cpu")
    with sampling(cpu) as one, sampling(cpu) as other:
        assert one is other is counters[0]
        assert one is not None
        assert (one.sample(), one.joules) == (4.0, 4.0)
        assert one.source == "package-0 (RAPL), by the share of processor time"
    assert len(counters) == 1
    with sampling(cpu) as later:
        assert later is not one


def test_a_sampler_reads_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "INTERVAL", 0.001)
    sampler = Sampler([Counted(1.0, "GPU")])
    sampler._ended.wait(0.5)
    sampler.close()
    assert sampler.joules > 1
    assert sampler.source == "GPU (NVML)"


def test_a_counter_that_fails_takes_nothing_of_another() -> None:
    class Failing:
        name = "package-0"

        def joules(self) -> float:
            raise OSError("no reading")

    sampler = Sampler([Counted(3.0, "GPU")], [Failing()], Half())  # type: ignore[arg-type]
    assert sampler.sample() == 3.0
    sampler.close()


def test_no_counter_no_energy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dlrun.execution.energy.rapl.POWERCAP", tmp_path)
    with sampling(torch.device("cpu")) as nothing:
        assert nothing is None
    assert Bill(Cost()).entries(100.0) == {}
    assert Bill(Cost(price_per_kwh=0.3)).entries(3600.0) == {"machine_seconds": 3600.0}
    assert "cost.watts=65" in Bill(Cost(price_per_kwh=0.3)).lacking()
    assert Bill(Cost(price_per_kwh=0.3, watts=5.0)).lacking() == ""


def test_money_and_co2_are_of_both_kinds_of_energy_and_of_all_processes() -> None:
    before = Spent({"machine_seconds": 1800.0, "joules": 3.6e6, "joules_estimated": 1.8e6})
    prices = Cost(watts=1e6, price_per_kwh=0.2, price_per_hour=3.0, g_co2_per_kwh=100.0)
    found = Bill(prices, lambda: 7.2e6, before=before, sharing=4).entries(7200.0)
    # 1 + 2 / 4 kWh measured (so the estimate does not grow), 0.5 estimated before; half an hour, and 2 h / 4
    assert found == {
        "machine_seconds": 3600.0,
        "joules": 5.4e6,
        "joules_estimated": 1.8e6,
        "money": pytest.approx(2.0 * 0.2 + 1.0 * 3.0),
        "g_co2": 200.0,
    }


@pytest.mark.parametrize(
    ("before", "measured", "unmetered"),
    [
        (Spent({"machine_seconds": 50.0, "joules": 9.0}, 50.0), False, 10.0),  # resumed on a machine that tells nothing
        (Spent({}, 50.0), True, 50.0),  # begun on one, without a price
        (Spent({"machine_seconds": 50.0, "money": 1.0}, 50.0), True, 50.0),  # and with that of an hour
        (Spent({"machine_seconds": 60.0, "joules": 9.0, "unmetered_seconds": 10.0}), True, 10.0),  # and back
        (Spent({"machine_seconds": 50.0, "joules": 9.0}, 50.0), True, 0.0),
    ],
)
def test_energy_of_a_part_of_the_time_has_no_price(before: Spent, measured: bool, unmetered: float) -> None:
    prices = Cost(price_per_kwh=0.3, price_per_hour=1.0, g_co2_per_kwh=100.0)
    found = Bill(prices, (lambda: 4.0) if measured else None, before=before).entries(10.0)
    assert found["joules"] == before.entries.get("joules", 0.0) + 4.0 * measured
    assert found.get("unmetered_seconds", 0.0) == unmetered
    assert ("money" in found, "g_co2" in found) == (not unmetered, not unmetered)
    # the price of an hour alone needs no energy
    by_hour = Bill(Cost(price_per_hour=3600.0), before=Spent({"machine_seconds": 5.0, "joules": 1.0})).entries(2.0)
    assert by_hour["money"] == 7.0
    assert ("no energy is known of" in describe_cost(Summary({"cost": found}))) == bool(unmetered)


def test_a_run_has_its_energy_in_curve_and_summary(counters: list[Sampler], call: Call) -> None:
    done = call("train", *FAST, "cost.price_per_kwh=0.5", "cost.currency=EUR", "cost.g_co2_per_kwh=3.6e6")
    assert done.code == 0, done.err
    run = all_runs()[-1]
    summary = run.summary()
    # one sample at the start counts what was before, one at the end: half of 8
    assert summary.cost["joules"] == 4.0
    assert summary.cost["g_co2"] == pytest.approx(4.0)
    assert summary.cost["money"] == pytest.approx(4.0 / 3.6e6 * 0.5)
    assert summary.cost_notes == {"basis": "package-0 (RAPL), by the share of processor time", "currency": "EUR"}
    assert [step for step, _ in curves(run.journal)["cost/joules"]] == [2, 4, 6]
    says(done.out, "4 J (1.11e-06 kWh)", "EUR", "4 g of CO2")
    # trained further: both processes count
    assert call("resume", run.id, "trainer.steps=8").code == 0
    assert run.summary().cost["joules"] == 8.0
    assert run.summary().cost["flop"] == pytest.approx(summary.cost["flop"] * 8 / 6)
    says(call("runs", "--metric", "cost/joules", "--where", "cost/joules>7").out, run.id, "8")


def test_a_killed_run_keeps_what_it_had(counters: list[Sampler], call: Call) -> None:
    assert call("train", *FAST).code == 0
    run = all_runs()[-1]
    with run.edit_summary() as summary:
        summary.status, summary.cost, summary.steps = "killed", {}, None  # SIGKILL leaves no time to write it
    with open_journal(run.journal) as journal:
        journal.metrics(6, 1, {"cost/joules": 3.0, "cost/machine_seconds": 50.0})
    says(call("runs", "--metric", "cost/joules", "--where", "cost/joules=3").out, run.id)
    assert call("resume", run.id, "trainer.steps=8").code == 0
    assert run.summary().cost["joules"] == 3.0 + 4.0
    assert run.summary().cost["machine_seconds"] > 50


def test_an_interrupted_run_says_its_cost(here: Path, counters: list[Sampler]) -> None:
    built, folder = build(compose.config([*FAST])), RunDir(here / "run")
    folder.path.mkdir()
    with (
        pytest.raises(KeyboardInterrupt),
        Interrupt() as interrupt,
        open_run(built, folder) as run,
        record_failure(run, interrupt),
    ):
        run.state.step = 3
        raise KeyboardInterrupt
    summary = folder.summary()
    assert (summary.status, summary.cost["joules"]) == ("killed", 4.0)
    assert summary.cost["flop"] == pytest.approx(3 * built.flop_per_step)


def test_an_estimate_is_called_one(call: Call) -> None:
    done = call("train", *FAST, "cost.watts=3600", "cost.price_per_hour=36")
    assert done.code == 0, done.err
    summary = all_runs()[-1].summary()
    seconds = summary.cost["machine_seconds"]
    assert 0 < seconds <= summary.seconds + 0.001
    assert summary.cost["joules_estimated"] == pytest.approx(3600 * seconds)
    assert summary.cost["money"] == pytest.approx(seconds / 100)
    assert "joules" not in summary.cost
    assert summary.cost_notes["basis"] == "an estimate: cost.watts=3600 for the time of the run"
    says(done.out, "kWh, estimated)")


def test_what_it_costs_changes_no_identity(call: Call) -> None:
    for words in ([], ["cost.watts=3"]):
        assert call("train", *FAST, *words).code == 0
    one, other = all_runs()
    assert one.summary().identity == other.summary().identity
    assert {*one.summary().cost} == {"flop", "mfu"}  # nothing is invented


def test_prices_are_checked(call: Call) -> None:
    refuses(call("check", "cost.watts=-1"), "cost.watts=-1")
    refuses(call("check", "cost.wats=1"), "cost.watts")
    says(call("train", *FAST, "cost.g_co2_per_kwh=300").err, "nothing on this machine tells the energy")
