"""A forked program is the program that a fresh interpreter runs, but for its imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlrun.storage.files.waiting import wait_until
from tests import processes

Run = Callable[..., subprocess.CompletedProcess[str]]

STATE = """
import os, signal, sys, threading
print(__name__, sys.argv, sys.path, os.getcwd(), sorted(os.environ.items()), os.getpgid(0), os.getppid() > 0)
print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1)])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1), threading.active_count())
print(sorted(map(int, os.listdir("/proc/self/fd")))[:3], sys.stdin.read(), sys.flags, sys.gettrace())
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.encoding, stream.errors, stream.line_buffering, stream.fileno(), stream.isatty())
"""
PROGRAMS = {
    "state": STATE,
    "code": "import sys; sys.exit(300)",
    "none": "import sys; sys.exit()",
    "error": "1 / 0",
    "interrupted": "raise KeyboardInterrupt",
    "words": "import sys; sys.exit('what went wrong')",
    "order": "import atexit, sys; atexit.register(print, 'last'); print('first'); sys.stderr.write('error')",
    "thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('waited for'))).start()",
    "killed": "import os; print('lost', end=''); os.kill(os.getpid(), 9)",
    "terminated": "import os; os.kill(os.getpid(), 15)",
    "hurried": "import os; print('lost'); os._exit(7)",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all are fresh")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_forked_program_does_what_a_fresh_one_does(program: str, here: Path) -> None:
    def told(run: Run) -> tuple[Any, ...]:
        command = [sys.executable, "-c", PROGRAMS[program], "an argument"]
        environment = os.environ | {"MINE": "mine"}
        done = run(command, cwd=here, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    environment = os.environ.pop(processes.PLACE)
    try:
        fresh = told(subprocess.run)
    finally:
        os.environ[processes.PLACE] = environment
    assert told(processes.run) == fresh


def test_a_disk_that_is_full_at_the_end_is_an_exit_code(here: Path) -> None:
    command = [sys.executable, "-c", "print('lost')"]
    with Path("/dev/full").open("w") as full:
        fresh, forked = (
            run(command, stdout=full, stderr=subprocess.PIPE, text=True) for run in (subprocess.run, processes.run)
        )
    assert (forked.returncode, forked.stderr) == (fresh.returncode, fresh.stderr)
    assert forked.returncode


def test_modules_and_files_are_run_by_their_names(here: Path) -> None:
    (here / "told.py").write_text("import sys; print(__name__, __file__, sys.argv, sys.path[0])")
    for command in (["-m", "told", "a"], ["told.py", "a"], [str(here / "told.py")]):
        fresh, forked = (
            run([sys.executable, *command], cwd=here, capture_output=True, text=True)
            for run in (subprocess.run, processes.run)
        )
        assert (forked.returncode, forked.stdout, forked.stderr) == (0, fresh.stdout, "")


def test_what_an_interpreter_reads_at_its_start_gets_a_fresh_one(here: Path) -> None:
    command = [sys.executable, "-c", "import sys; print(sys.stdout.encoding, 'torch' in sys.modules)"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    assert processes.run(command, env=environment, capture_output=True, text=True).stdout == "iso8859-1 False\n"
    assert "True" in processes.run(command, capture_output=True, text=True).stdout


def test_signals_sessions_and_pipes(here: Path) -> None:
    program = "import os, time; print(os.getsid(0) == os.getpgid(0) == os.getpid(), flush=True); time.sleep(60)"
    process = processes.Process(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert process.stdout.readline() == "True\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(30) == ("", None)
    assert process.returncode == process.wait() == -signal.SIGTERM
    assert wait_until(lambda: not Path(f"/proc/{process.pid}").exists(), 30)
    process.kill()  # of what has ended: nothing
