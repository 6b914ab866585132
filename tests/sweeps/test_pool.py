"""The pool: no end of a job harms another, every end is reported, and nobody leaves processes behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

from dlrun.errors import Pruned, RunError, UserError
from dlrun.runs.interrupt import EarlyInterrupt, Interrupt
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.jobs.job import Job
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.job_events import write_status
from dlrun.sweeps.pool.display import Display, describe_failure, describe_failures, is_failure
from dlrun.sweeps.pool.fork_server_exit import is_server
from dlrun.sweeps.pool.pool import Pool
from dlrun.sweeps.pool.slots import Slot, lock
from dlrun.sweeps.pool.task import Task, TaskResult, task_result

# jobs are functions of this file: sent by value, so that a job need not import pytest
cloudpickle.register_pickle_by_value(sys.modules[__name__])

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked from a server on Linux alone")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A new fork server, with torch and dlrun imported."""
    import dlrun.commands.train  # noqa: F401 -- the server imports what this process has

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def slots(count: int, threads: int = 1, device: str | None = None) -> list[Slot]:
    return [Slot(index, device, threads, place=index) for index in range(count)]


def run_tasks(here: Path, *calls: Callable[[], Any], slots: list[Slot] = slots(2)) -> list[TaskResult]:  # noqa: B008
    """The results of the calls in a pool, in their order."""
    found: list[TaskResult] = []
    with Pool(slots) as pool:
        tasks = [Task(key, call, f"x={key}", here / str(key) / "log") for key, call in enumerate(calls)]
        pool.run(tasks, on_result=lambda outcome: found.append(outcome) is None)
    return sorted(found, key=lambda outcome: outcome.key)


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def no_such_key() -> None:
    print("about to fail")
    raise UserError("no such key")


def unsendable() -> None:
    raise Unsendable(1, 2)


def segmentation_fault() -> None:
    ctypes.string_at(0)


def test_every_end_is_told_and_harms_no_other(here: Path) -> None:
    ends: list[tuple[Callable[[], Any], str]] = [
        (lambda: 7, ""),
        (no_such_key, "UserError: no such key"),
        (lambda: sys.exit(3), "exited with code 3"),
        (lambda: sys.exit(), "exited with code 0"),
        (lambda: sys.exit("so there"), "exited with code 1"),
        (lambda: os._exit(4), "exited with code 4"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (segmentation_fault, "killed by SIGSEGV"),
        (unsendable, "Unsendable: 1 and 2"),
        (threading.Lock, "RunError: The job's result cannot be sent to the launcher:"),
        (lambda: b"x" * 5_000_000, ""),
    ]
    found = run_tasks(here, *(call for call, _ in ends), slots=slots(4))
    for outcome, (_, told) in zip(found, ends, strict=True):
        assert outcome.message.startswith(told)
        assert (outcome.error is None) == (told == "")
    assert found[0].value == 7
    assert isinstance(found[1].error, UserError)
    assert len(found[10].value) == 5_000_000
    log = found[1].log.read_text()
    assert log.startswith("about to fail\nTraceback")
    assert log.endswith("no such key\n")
    assert found[4].log.read_text() == "so there\n"
    assert "Segmentation fault" in found[7].log.read_text()


def describe_process() -> dict[str, Any]:
    os.system("echo from a child of its own")
    return {
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "mine": os.environ.get("MINE"),
        "folder": str(Path.cwd()),
        "group": os.getpgid(0) == os.getpid(),
        "initialised": torch.cuda.is_initialized(),
    }


def test_a_job_has_its_device_its_threads_and_the_launchers_surroundings(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (on_gpu,) = run_tasks(here, describe_process, slots=slots(1, threads=3, device="1"))
    assert on_gpu.value == {
        "device": "1",
        "threads": 3,
        "mine": "1",
        "folder": str(here),
        "group": True,
        "initialised": False,
    }
    assert on_gpu.log.read_text() == "from a child of its own\n"
    (on_cpu,) = run_tasks(here, describe_process, slots=slots(1))
    assert on_cpu.value["device"] == "0,1"


def product() -> float:
    x = torch.ones(600, 600, requires_grad=True)
    (x @ x).sum().backward()
    assert x.grad is not None
    return float(x.grad[0, 0])


def draw() -> float:
    import numpy as np

    return float(np.random.rand())


def ends_at_once() -> bool:
    return "dlrun.sweeps.pool.fork_server_exit" in sys.modules and is_server()


@on_linux
def test_a_job_of_the_server_computes_on_two_threads_and_draws_its_own_numbers(here: Path) -> None:
    found = run_tasks(here, product, product, draw, draw, ends_at_once, slots=slots(1, threads=2))
    assert [outcome.value for outcome in found[:2]] == [1200.0, 1200.0]
    assert found[2].value != found[3].value
    # this process must not, though it has imported the same
    assert (found[4].value, is_server()) == (True, False)


def lingering() -> int:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return 7


def test_a_job_that_has_answered_and_does_not_end_is_ended(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.sweeps.pool.pool.GRACE", 0.1)
    (found,) = run_tasks(here, lingering)
    assert (found.value, found.error) == (7, None)


def test_eight_slots_start_at_once(here: Path) -> None:
    found = run_tasks(here, *[os.getpid] * 16, slots=slots(8))
    assert len({outcome.value for outcome in found}) == 16
    assert {outcome.error for outcome in found} == {None}


def appears(file: Path) -> bool:
    return wait_until(file.exists, 30, poll=0.01)


def test_a_slot_is_filled_again_as_soon_as_it_is_free(here: Path) -> None:
    # the first ends only when the third has run, in the second's slot
    found = run_tasks(here, partial(appears, here / "third"), int, (here / "third").touch)
    assert [outcome.value for outcome in found] == [True, 0, None]


def test_no_job_is_started_once_it_was_said_so(here: Path) -> None:
    started: list[int] = []

    def tasks() -> Iterator[Task]:
        for key in range(9):
            started.append(key)
            yield Task(key, int, "", here / "log")

    with Pool(slots(1)) as pool:
        pool.run(tasks(), on_result=lambda outcome: outcome.key < 2)
    assert started == [0, 1, 2]


def test_tasks_may_depend_on_what_came_of_others(here: Path) -> None:
    values: list[int] = []

    def tasks() -> Iterator[Task | None]:
        for key in range(3):
            yield Task(key, partial(sum, [*values, 1]), "", here / "log")
            while len(values) <= key:
                yield None

    with Pool(slots(2)) as pool:
        pool.run(tasks(), on_result=lambda outcome: values.append(outcome.value) is None)
    assert values == [1, 2, 4]


def prunable(ready: Path) -> None:
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    ready.touch()
    wait_until(lambda: bool(asked), 30, poll=0.01)
    raise Pruned("stopped at step 3")


def test_one_job_can_be_asked_to_stop(here: Path) -> None:
    found: list[TaskResult] = []
    with Pool(slots(2)) as pool:

        def tick(_: int) -> None:
            if (here / "ready").exists():
                pool.stop(0)

        tasks = [Task(0, partial(prunable, here / "ready"), "x=0", here / "log"), Task(1, int, "x=1", here / "log")]
        pool.run(tasks, on_result=lambda outcome: found.append(outcome) is None, on_tick=tick)
    pruned = next(outcome for outcome in found if outcome.key == 0)
    assert isinstance(pruned.error, Pruned)
    assert not is_failure(pruned)


def test_a_place_on_a_gpu_is_held_by_the_job_and_waited_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slot,) = slots(1, device="made up")
    other = lock(slot)
    assert other is not None
    assert lock(slot) is None
    threading.Timer(0.6, other.release).start()
    (found,) = run_tasks(here, lambda: lock(slot) is None, slots=[slot])
    assert found.value is True
    assert capsys.readouterr().out.count("waiting for a GPU") == 1
    again = lock(slot)
    assert again is not None
    again.release()


LAUNCHER = """
import os, signal, sys, time
from pathlib import Path
from dlrun.sweeps.pool.pool import Pool
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool.task import Task

here, deaf = Path(sys.argv[1]), sys.argv[2] == "deaf"

def job(n):
    def save(*_):
        (here / f"saved{n}").touch()
        if not deaf:
            sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (here / f"pid{n}").write_text(str(os.getpid()))
    time.sleep(60)
    time.sleep(60)

with Pool([Slot(0, None, 1), Slot(1, None, 1)]) as pool:
    tasks = (Task(n, lambda n=n: job(n), str(n), here / f"log{n}") for n in range(9))
    pool.run(tasks, on_result=lambda outcome: print(outcome.message, flush=True) is None)
"""


def start_launcher(here: Path, kind: str = "listening") -> tuple[subprocess.Popen[str], list[int]]:
    """A launcher with two running jobs, and their process ids."""
    # a script without a guard: no job may run it again
    (here / "launcher.py").write_text(LAUNCHER)
    command = [sys.executable, str(here / "launcher.py"), str(here), kind]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    files = [here / "pid0", here / "pid1"]
    assert wait_until(lambda: all(file.exists() and file.read_text() for file in files), 60)
    return launcher, [int(file.read_text()) for file in files]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a zombie has ended, though nobody has waited for it
    return "zombie" not in Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_an_interrupt_lets_all_jobs_save_and_starts_no_other(number: signal.Signals, code: int, here: Path) -> None:
    launcher, jobs = start_launcher(here)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=30)
    assert launcher.returncode == code, err
    assert out.splitlines() == [
        "stopping: 2 running jobs save; Ctrl-C again kills them",
        *["exited with code 143"] * 2,
    ]
    assert (here / "saved0").exists() and (here / "saved1").exists()
    assert not (here / "pid2").exists()
    assert not any(map(alive, jobs))


@pytest.mark.parametrize("kind", [EarlyInterrupt, Interrupt])
def test_an_interrupt_that_was_swallowed_before_starts_no_job(here: Path, kind: type[Interrupt]) -> None:
    with kind() as before:
        with suppress(KeyboardInterrupt):
            before._note(signal.SIGINT, None)
        found: list[TaskResult] = []
        with Pool(slots(1)) as pool, pytest.raises(KeyboardInterrupt):
            pool.run([Task(0, int, "x=0", here / "log")], on_result=lambda result: found.append(result) is None)
    assert not found


def test_a_second_interrupt_kills(here: Path) -> None:
    launcher, jobs = start_launcher(here, "deaf")
    launcher.send_signal(signal.SIGINT)
    assert appears(here / "saved0") and appears(here / "saved1")
    launcher.send_signal(signal.SIGINT)
    out, _ = launcher.communicate(timeout=30)
    assert out.count("killed by SIGKILL") == 2
    assert not any(map(alive, jobs))


@on_linux
def test_a_launcher_that_is_killed_leaves_no_process(here: Path) -> None:
    launcher, jobs = start_launcher(here)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    launcher.kill()
    launcher.communicate()
    assert wait_until(lambda: not any(map(alive, [*jobs, *map(int, children)])), 30)
    assert (here / "saved0").exists() and (here / "saved1").exists()
    assert "Traceback" not in (here / "log0").read_text()


def make_result(
    key: int, error: BaseException | None = None, message: str = "", log: Path = Path("nowhere")
) -> TaskResult:
    value = None if error else {"metrics": {"val/loss": 0.25}}
    return TaskResult(key, f"lr={key} seed=0", log, value, error, message, 1.25)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [("exit", 130, "killed"), ("exit", 143, "killed"), ("exit", -15, "killed"), ("exit", 3, "failed")],
)
def test_a_job_that_was_asked_to_end_has_not_failed(
    here: Path, kind: Any, content: int, status: str, begun: bool
) -> None:
    result = task_result(Task(0, int, "", here / "log"), kind, content, "", seconds=1.0)
    assert is_failure(result) == (status == "failed")
    if begun:
        (here / "0").mkdir()
    job = Job(0, (), {"name": "made", "seed": 0}, "identity", "group")
    write_status(RunDir(here / "0"), job, result)
    assert RunDir(here / "0").summary().status == status


def test_what_is_shown_of_the_jobs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = here / "log"
    log.write_text("".join(f"line {i}\n\n" for i in range(50)))
    failed = make_result(2, ValueError("no"), "ValueError: no", log)
    display = Display(3, "val/loss")
    for each in (make_result(1), failed, make_result(3, Pruned("stopped at step 9"), "Pruned: stopped at step 9")):
        display.show_result(each)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "  1/3  lr=1 seed=0  val/loss 0.25  1.2 s",
        "  3/3  lr=3 seed=0  Pruned: stopped at step 9  1.2 s",
    ]
    assert err == f"dlrun: {describe_failure(failed)}\n"
    assert "lr=2 seed=0\n  ValueError: no" in err
    assert str(log) in err
    assert "line 49" in err and "line 40" not in err
    asked = task_result(Task(4, int, "lr=4 seed=0", log), "exit", 143, "", seconds=1.25)
    told = describe_failures([make_result(1), failed, asked])
    assert told.startswith("1 of 3 jobs failed:\njob 2 failed: lr=2 seed=0")
    assert describe_failures([make_result(1)]) == ""


def test_jobs_without_a_line_each_get_one_after_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    display = Display(9, begun=0.0, lasted=0.0)
    shown = []
    for clock in range(100):
        display.done = int(clock // 20)
        display.heartbeat(1)
        if said := capsys.readouterr().out:
            shown.append((clock, said.strip()))
    assert [seconds for seconds, _ in shown] == [31, 62, 93]
    assert shown[-1][1] == "4 of 9 done, 1 running, 4 left, about 1 min 56 s"


def test_the_live_line_tells_how_long_it_will_take() -> None:
    display = Display(10, begun=time.monotonic() - 20)
    display.done, display.failed = 4, 1
    # six of ten are left, after five seconds each
    assert display.line(2).startswith("  4 of 10 done, 1 failed, 2 running, 4 left, about 30.")


def write_parent(file: Path, end: Callable[[], Any]) -> int:
    """Say which process forked this one, wait until that has died, and end."""
    server = os.getppid()
    file.with_suffix(".part").write_text(f"{server} {os.getpid()}")
    file.with_suffix(".part").rename(file)
    wait_until(lambda: os.getppid() != server, 20)
    time.sleep(0.3)
    end()
    return server


@on_linux
def test_jobs_outlive_their_fork_server_and_keep_their_slots(here: Path) -> None:
    started = [here / "0.txt", here / "1.txt"]
    running: list[int] = []
    calls = [partial(write_parent, started[0], bool), partial(write_parent, started[1], lambda: os._exit(9))]
    tasks = [Task(key, call, f"x={key}", here / str(key) / "log") for key, call in enumerate([*calls, os.getppid])]
    found: dict[int, TaskResult] = {}

    def kill_server() -> None:
        wait_until(lambda: all(file.exists() for file in started), 30)
        os.kill(int(started[0].read_text().split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_server)
    killer.start()
    with Pool(slots(2)) as pool:
        pool.run(tasks, on_result=lambda result: found.update({result.key: result}) is None, on_tick=running.append)
    killer.join()
    server, lost = (int(word) for word in started[1].read_text().split())
    assert found[0].value == server, found[0].message
    # its code is not known, for nobody waited for it
    assert isinstance(found[1].error, RunError) and found[1].exit_code is None
    assert not Path(f"/proc/{lost}").exists() or "Z" in Path(f"/proc/{lost}/stat").read_text()
    # the third found a new server
    assert found[2].value != server
    assert max(running) <= 2
