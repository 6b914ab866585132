"""A process that has imported what dlrun's programs import, and forks each program from itself: for tests.

`python fork_server.py DESCRIPTOR MODULE …`, of a socket that listens, imports nothing before it is first asked. A
forked child returns from `serve` and runs its program at the top of the interpreter, as `python -m dlrun …` would:
with arguments, environment, folder, streams and process group of its own, up to the interpreter's own end (exit
code, threads, `atexit`, the last flush), of which only the demolition of all modules is left out. It saves the
imports, 3 s, and shows nothing of them: whether a program starts is tested by fresh processes.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pickle
import runpy
import selectors
import signal
import socket
import struct
import sys
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("!q")

ABLE = sys.platform == "linux"
"""Whether a process with all that imported can be forked; if not, a child is a new interpreter."""

START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "OPENBLAS_", "LD_", "MALLOC_")
"""How the variables begin that are read while an interpreter starts: for others than the server's, a new one is."""


def serve(descriptor: int, modules: list[str]) -> dict[str, Any]:
    """Fork a child for each request; return in the child, with the request.

    A request is its length with three streams, and a pickled dictionary. Its answers are the child's id, from
    the child once it is settled, and at its end its exit code as `subprocess` has it, from the server, which
    itself ends with its standard input.
    """
    with socket.socket(fileno=descriptor) as listener, selectors.DefaultSelector() as ready:
        wakes, wake = os.pipe()
        for end in (wakes, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        for source in (listener.fileno(), wakes, 0):
            ready.register(source, selectors.EVENT_READ)
        running: dict[int, socket.socket] = {}
        while True:
            events = {key.fd for key, _ in ready.select()}
            if wakes in events:
                os.read(wakes, 4096)
                _bury(running)
            if 0 in events:
                _end(running)
            if listener.fileno() in events:
                asked = _fork(listener.accept()[0], running, modules)
                if asked is not None:
                    break
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (wakes, wake):
            os.close(end)
    return asked


def _fork(caller: socket.socket, running: dict[int, socket.socket], modules: list[str]) -> dict[str, Any] | None:
    """Read a request and fork; return the request in the child, None in the server."""
    header, streams, _, _ = socket.recv_fds(caller, NUMBER.size, 3)
    if not header:
        caller.close()
        return None
    with caller.makefile("rb") as rest:
        asked: dict[str, Any] = pickle.loads(rest.read(*NUMBER.unpack(header)))
    for module in modules if ABLE else []:
        importlib.import_module(module)
    gc.freeze()  # a collection in a child would copy all of it
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        running[pid] = caller
        return None
    for connection in running.values():
        connection.close()
    asked["caller"] = caller
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return asked


def _bury(running: dict[int, socket.socket]) -> None:
    """Tell those who wait what became of their processes."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as caller, suppress(OSError):  # perhaps nobody waits
            caller.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _end(running: dict[int, socket.socket]) -> None:
    """Leave no process behind: those who asked are gone."""
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def settle(asked: dict[str, Any]) -> None:
    """Give a child the surroundings of a fresh process."""
    if asked["session"]:
        os.setsid()
    else:
        os.setpgid(0, asked["group"])
    os.chdir(asked["cwd"])
    with asked["caller"] as caller:
        caller.sendall(NUMBER.pack(os.getpid()))
    if not ABLE or _at_start(asked["environment"]) != _at_start(os.environ):
        os.execve(sys.executable, [sys.executable, *asked["program"]], asked["environment"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream.isatty())  # type: ignore[union-attr]
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed([*os.urandom(16)])
    sys.modules["__main__"] = types.ModuleType("__main__")


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(START) and name != "PYTHONPATH"}


def run(program: list[str], path: list[str]) -> None:
    """Run `-m MODULE …`, `-c CODE …` or `FILE …` as the interpreter does; `path` follows the program's own place."""
    safe = program[0] == "-P"
    kind, *rest = program[safe:]
    own = {"-m": str(Path.cwd()), "-c": ""}.get(kind, str(Path(kind).absolute().parent))
    sys.path[:] = path if safe else [own, *path]
    if kind == "-m":
        sys.argv = rest
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.argv = [kind, *rest]
        file = str(Path(kind).absolute())
        sys.modules["__main__"].__file__ = file
        exec(compile(Path(file).read_bytes(), file, "exec"), sys.modules["__main__"].__dict__)


def leave(codes: list[int]) -> None:
    """End a child whose program has come to its end: last of all functions of `atexit`, and before the modules go."""
    if codes:
        with suppress(OSError):  # left to the interpreter, which has an exit code for it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


def tell(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Show an error that ends a program, without the lines that led to it here."""
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    codes: list[int] = []
    atexit.register(leave, codes)
    before = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    installed = [place for place in sys.path[1:] if place not in before]
    found = serve(int(sys.argv[1]), sys.argv[2:])
    settle(found)
    added = [*filter(None, found["environment"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.excepthook = tell
    try:
        run(found["program"], [*added, *installed])
        codes.append(0)
    except SystemExit as stopped:
        codes.extend([0] if stopped.code is None else [stopped.code & 255] if isinstance(stopped.code, int) else [])
        raise
